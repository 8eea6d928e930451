package storage

import (
	"net/http"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// options sends a preflight request, as a browser does: without a signature.
func (g guest) options(t *testing.T, path string, header map[string]string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, g.url+path, http.NoBody)
	gatewaytest.Must(t, err)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	return answer(t, r)
}

func TestCORS(t *testing.T) {
	h := newHost(t)
	g, other := h.guest("blog"), h.guest("shop")
	put(t, g.dummy(), "box", "k", []byte("x"))
	rules := `<CORSConfiguration><CORSRule><AllowedOrigin>https://*.example.com</AllowedOrigin><AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod>` +
		`<AllowedHeader>x-amz-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>` +
		`<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>HEAD</AllowedMethod></CORSRule></CORSConfiguration>`
	g.do(t, "GET", "/box?cors", nil).want(t, "none", 404, code("NoSuchCORSConfiguration"))
	g.doBody(t, "PUT", "/box?cors", rules).want(t, "set", 200)
	g.do(t, "GET", "/box?cors", nil).want(t, "get", 200, "<AllowedOrigin>https://*.example.com</AllowedOrigin>")
	page := "https://app.example.com"
	for name, c := range map[string]struct {
		header map[string]string
		status int
		allow  string
	}{
		"allowed":       {map[string]string{"Origin": page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "X-Amz-Date, x-amz-meta-a"}, 200, page},
		"other header":  {map[string]string{"Origin": page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}, 403, ""},
		"other method":  {map[string]string{"Origin": page, "Access-Control-Request-Method": "DELETE"}, 403, ""},
		"other origin":  {map[string]string{"Origin": "https://example.org", "Access-Control-Request-Method": "PUT"}, 403, ""},
		"any origin":    {map[string]string{"Origin": "https://example.org", "Access-Control-Request-Method": "HEAD"}, 200, "*"},
		"no preflight":  {map[string]string{"Origin": page}, 400, ""},
		"many headers":  {map[string]string{"Origin": page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": strings.Repeat("x-amz-a,", 101)}, 400, ""},
		"large header":  {map[string]string{"Origin": page, "Access-Control-Request-Method": "HEAD", "X-A": strings.Repeat("a", 9000)}, 400, ""},
		"no bucket":     {map[string]string{"Origin": page, "Access-Control-Request-Method": "PUT"}, 403, ""},
		"suffix origin": {map[string]string{"Origin": "https://evil-example.com", "Access-Control-Request-Method": "PUT"}, 403, ""},
	} {
		path := "/box/k"
		if name == "no bucket" {
			path = "/"
		}
		got := g.options(t, path, c.header)
		if got.status != c.status || got.header.Get("Access-Control-Allow-Origin") != c.allow {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
	}
	if got := other.options(t, "/box/k", map[string]string{"Origin": page, "Access-Control-Request-Method": "PUT"}); got.status != 404 {
		t.Errorf("another VM's rules: %d %v", got.status, got.header)
	}
	for _, path := range []string{"/box/k", "/box/none"} {
		got := g.do(t, "GET", path, map[string]string{"Origin": page})
		if got.header.Get("Access-Control-Allow-Origin") != page || got.header.Get("Access-Control-Expose-Headers") != "ETag" || got.header.Get("Vary") == "" {
			t.Errorf("%s: %v", path, got.header)
		}
	}
	if got := g.do(t, "GET", "/box/k", map[string]string{"Origin": "https://example.org"}); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another page: %v", got.header)
	}
	g.do(t, "DELETE", "/box?cors", nil).want(t, "delete", 204)
	g.do(t, "GET", "/box?cors", nil).want(t, "deleted", 404)
	for name, text := range map[string]string{
		"empty": "<CORSConfiguration/>", "method": "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>PATCH</AllowedMethod></CORSRule></CORSConfiguration>",
		"stars": "<CORSConfiguration><CORSRule><AllowedOrigin>*.*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>",
	} {
		if got := g.doBody(t, "PUT", "/box?cors", text); got.status != 400 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

// A preflight has no signature, but a place among the VM's requests.
func TestPreflightsAreAdmitted(t *testing.T) {
	g := newHost(t).guest("blog")
	put(t, g.dummy(), "box", "k", []byte("x"))
	ask := map[string]string{"Origin": "https://example.com", "Access-Control-Request-Method": "PUT"}
	if got := g.options(t, "/box/k", ask); got.status != 403 {
		t.Errorf("without rules: %d %s", got.status, got.body)
	}
	for range maxRequestsPerVM {
		_, leave, err := g.host.admission.enter(t.Context(), g.ID, atTap, false)
		gatewaytest.Must(t, err)
		defer leave()
	}
	if got := g.options(t, "/box/k", ask); got.status != 503 {
		t.Errorf("one more than the VM may have: %d %s", got.status, got.body)
	}
}

// A method that a sub-resource does not have is refused, and not carried out on what it belongs to.
func TestMethodsOfSubresources(t *testing.T) {
	g := newHost(t).guest("blog")
	put(t, g.dummy(), "box", "k", []byte("x"))
	g.do(t, "PUT", "/empty", nil).want(t, "empty bucket", 200)
	for path, queries := range map[string][]string{
		"DELETE /box/k": {"acl", "retention", "legal-hold", "attributes", "uploads"},
		"PUT /box/k":    {"attributes", "uploads"},
		"GET /box/k":    {"uploads"},
		"HEAD /box/k":   {"acl"},
		"DELETE /empty": {"versioning", "object-lock", "acl", "location", "uploads", "versions", "delete"},
		"PUT /new":      {"location", "versions", "uploads", "delete"},
		"GET /box":      {"delete"},
	} {
		method, path, _ := strings.Cut(path, " ")
		for _, query := range queries {
			g.send(t, method, path+"?"+query, "", "y", nil).want(t, method+" "+path+" "+query, 405)
		}
	}
	if got := get(t, g.dummy(), "box", "k"); string(got) != "x" {
		t.Errorf("the object is %q", got)
	}
	g.do(t, "HEAD", "/empty", nil).want(t, "the empty bucket", 200)
	g.do(t, "HEAD", "/new", nil).want(t, "no bucket was made", 404)
}

// TestSettings are the sub-resources of a bucket: what is kept, what is fixed, what is refused.
func TestSettings(t *testing.T) {
	g := newHost(t).guest("blog")
	put(t, g.dummy(), "box", "k", []byte("x"))
	for query, c := range map[string]string{
		"policy": "NoSuchBucketPolicy", "lifecycle": "NoSuchLifecycleConfiguration", "website": "NoSuchWebsiteConfiguration", "tagging": "NoSuchTagSet",
		"encryption": "ServerSideEncryptionConfigurationNotFoundError", "replication": "ReplicationConfigurationNotFoundError",
		"publicAccessBlock": "NoSuchPublicAccessBlockConfiguration", "ownershipControls": "OwnershipControlsNotFoundError",
	} {
		g.do(t, "GET", "/box?"+query, nil).want(t, query, 404, code(c))
		g.do(t, "GET", "/no-such?"+query, nil).want(t, query, 404, code("NoSuchBucket"))
	}
	for query, text := range map[string]string{
		"location": "<LocationConstraint", "logging": "<BucketLoggingStatus", "requestPayment": "<Payer>BucketOwner</Payer>", "acl": "FULL_CONTROL",
		"notification": "<NotificationConfiguration", "accelerate": "<AccelerateConfiguration",
	} {
		g.do(t, "GET", "/box?"+query, nil).want(t, query, 200, text)
		g.do(t, "GET", "/no-such?"+query, nil).want(t, query, 404, code("NoSuchBucket"))
	}
	for _, query := range []string{"replication", "logging", "accelerate", "requestPayment", "inventory", "metrics"} {
		g.do(t, "PUT", "/box?"+query, nil).want(t, query, 501, code("NotImplemented"))
	}
	for _, query := range []string{"torrent", "restore", "select&select-type=2"} {
		g.do(t, "POST", "/box/k?"+query, nil).want(t, query, 501, code("NotImplemented"))
	}
	for query, text := range map[string]string{
		"publicAccessBlock": "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
		"ownershipControls": "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
		"encryption":        "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
		"tagging":           "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
		"lifecycle":         "<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status><Filter><Prefix>x</Prefix></Filter><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
	} {
		if got := g.doBody(t, "PUT", "/box?"+query, text); got.status != 200 && got.status != 204 {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
		g.do(t, "GET", "/box?"+query, nil).want(t, query, 200)
		g.do(t, "DELETE", "/box?"+query, nil).want(t, query, 204)
		g.do(t, "GET", "/box?"+query, nil).want(t, query, 404)
		g.doBody(t, "PUT", "/box?"+query, "<Nonsense/>").want(t, query, 400)
	}
	g.do(t, "PUT", "/no-such?acl", map[string]string{"X-Amz-Acl": "private"}).want(t, "ACL of no bucket", 404, code("NoSuchBucket"))
	g.do(t, "PUT", "/box/none?acl", map[string]string{"X-Amz-Acl": "private"}).want(t, "ACL of no object", 404, code("NoSuchKey"))
	g.do(t, "PUT", "/box/k?acl", map[string]string{"X-Amz-Acl": "private"}).want(t, "ACL", 200)
	var tags strings.Builder
	for _, name := range "abcdefghijk" {
		tags.WriteString("<Tag><Key>" + string(name) + "</Key><Value></Value></Tag>")
	}
	g.doBody(t, "PUT", "/box/k?tagging", "<Tagging><TagSet>"+tags.String()+"</TagSet></Tagging>").want(t, "11 tags", 400, code("InvalidTag"))
	g.doBody(t, "PUT", "/box/k?tagging", "<Tagging><TagSet><Tag><Key>a</Key></Tag><Tag><Key>a</Key></Tag></TagSet></Tagging>").want(t, "a tag twice", 400, code("InvalidTag"))
}
