package storage

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/storage/s3"
)

// anonymous sends a request as a door outside does: nobody has signed it.
func (g guest) anonymous(t *testing.T, method, path string) reply {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)
	w := httptest.NewRecorder()
	target, err := s3.ParseTarget(r)
	gatewaytest.Must(t, err)
	if err := g.host.protocol.Public(w, r, s3.Caller{VM: g.Identity}, target); err != nil {
		s3.WriteError(w, r, target, err)
	}
	return reply{w.Code, w.Body.String(), w.Header()}
}

func policyOf(statements ...string) string {
	return `{"Version": "2012-10-17", "Statement": [` + strings.Join(statements, ",") + `]}`
}

const denyDelete = `{"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject*", "Resource": "arn:aws:s3:::box/kept/*"}`

// A Deny applies to the VM itself, in every way to do the same; but it can always change the policy.
func TestPolicyDenies(t *testing.T) {
	g := newHost(t).guest("blog")
	for _, path := range []string{"/box/kept/a", "/box/kept/b", "/box/other", "/box/secret"} {
		g.send(t, "PUT", path, "", "x", nil).want(t, path, 200)
	}
	g.doBody(t, "PUT", "/box?policy", policyOf(denyDelete,
		`{"Effect": "Deny", "Principal": {"AWS": "`+g.ID.String()+`"}, "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::box/secret"}`,
		`{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::box/*", "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}}}`,
		`{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObjectTagging", "Resource": "arn:aws:s3:::box/*"}`,
		`{"Effect": "Deny", "Principal": "*", "Action": "s3:*Policy", "Resource": "arn:aws:s3:::box"}`)).want(t, "set", 204)
	g.do(t, "DELETE", "/box/kept/a", nil).want(t, "delete", 403, code("AccessDenied"))
	g.do(t, "DELETE", "/box/kept/a?versionId=null", nil).want(t, "delete a version", 403, code("AccessDenied"))
	got := g.doBody(t, "POST", "/box?delete", "<Delete><Object><Key>kept/b</Key></Object><Object><Key>other</Key></Object></Delete>")
	got.want(t, "delete several", 200, "<Deleted><Key>other</Key></Deleted>", "<Key>kept/b</Key><Code>AccessDenied</Code>")
	g.do(t, "GET", "/box/secret", nil).want(t, "get", 403, code("AccessDenied"))
	g.do(t, "HEAD", "/box/secret", nil).want(t, "head", 403)
	g.do(t, "PUT", "/else/copy", map[string]string{"X-Amz-Copy-Source": "/box/secret"}).want(t, "copy", 403, code("AccessDenied"))
	g.do(t, "GET", "/box/kept/a", nil).want(t, "another one", 200)
	g.send(t, "PUT", "/box/n", "", "x", nil).want(t, "not encrypted", 403)
	g.do(t, "POST", "/box/n?uploads", nil).want(t, "not encrypted, in parts", 403)
	g.send(t, "PUT", "/box/n", "", "x", byHost).want(t, "encrypted", 200)
	g.send(t, "PUT", "/box/n", "", "x", with(byHost, map[string]string{"X-Amz-Tagging": "a=b"})).want(t, "with tags", 403)
	g.do(t, "GET", "/box?policy", nil).want(t, "get the policy", 200, "kept/*")
	g.do(t, "DELETE", "/box?policy", nil).want(t, "remove the policy", 204)
	g.do(t, "GET", "/box?policy", nil).want(t, "none", 404, code("NoSuchBucketPolicy"))
	g.do(t, "DELETE", "/box/kept/a", nil).want(t, "delete", 204)
}

const readAll = `{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/public/*"}`

// What the policy allows to everyone can be done without a signature at a door outside, and nothing else.
func TestAnonymousReads(t *testing.T) {
	h := newHost(t)
	g, other := h.guest("blog"), h.guest("shop")
	g.send(t, "PUT", "/box/public/a", "", "x", nil).want(t, "put", 200)
	g.send(t, "PUT", "/box/private", "", "x", nil).want(t, "put", 200)
	g.anonymous(t, "GET", "/box/public/a").want(t, "without a policy", 403, code("AccessDenied"))
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll)).want(t, "set", 204)
	g.do(t, "GET", "/box?policyStatus", nil).want(t, "status", 200, "<IsPublic>TRUE</IsPublic>")
	if got := g.anonymous(t, "GET", "/box/public/a"); got.status != 200 || got.body != "x" {
		t.Errorf("get: %d %s", got.status, got.body)
	}
	g.anonymous(t, "HEAD", "/box/public/a").want(t, "head", 200)
	for _, path := range []string{
		"GET /box/private", "GET /box", "GET /", "GET /box?policy", "GET /box/public/a?acl", "GET /box/public/a?versionId=null", "PUT /box/public/a", "DELETE /box/public/a",
		"POST /box?delete", "POST /box/public/a?uploads", "PUT /box?policy", "GET /box?uploads",
	} {
		method, path, _ := strings.Cut(path, " ")
		if got := g.anonymous(t, method, path); got.status < 400 {
			t.Errorf("%s %s: %d", method, path, got.status)
		}
	}
	g.anonymous(t, "PUT", "/new/k").want(t, "a new bucket", 403, code("AccessDenied"))
	other.anonymous(t, "GET", "/box/public/a").want(t, "of another VM", 403, code("AccessDenied"))
	block := func(name string) string {
		return "<PublicAccessBlockConfiguration><" + name + ">true</" + name + "></PublicAccessBlockConfiguration>"
	}
	g.doBody(t, "PUT", "/box?publicAccessBlock", block("RestrictPublicBuckets")).want(t, "restrict", 200)
	g.anonymous(t, "GET", "/box/public/a").want(t, "restricted", 403)
	g.do(t, "GET", "/box/public/a", nil).want(t, "the owner", 200)
	g.doBody(t, "PUT", "/box?publicAccessBlock", block("BlockPublicPolicy")).want(t, "block", 200)
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll)).want(t, "a public policy", 403, code("AccessDenied"))
	g.doBody(t, "PUT", "/box?policy", policyOf(`{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*", "Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}`)).
		want(t, "for some addresses", 204)
	g.do(t, "GET", "/box?policyStatus", nil).want(t, "status", 200, "<IsPublic>FALSE</IsPublic>")
	if got := g.anonymous(t, "GET", "/box/private"); got.status != 200 { // httptest's address is 192.0.2.1
		t.Errorf("from there: %d %s", got.status, got.body)
	}
}

// Lists exist where the ownership has them; else they are refused, and none counts.
func TestLists(t *testing.T) {
	g := newHost(t).guest("blog")
	g.send(t, "PUT", "/box/k", "", "x", nil).want(t, "put", 200)
	public := map[string]string{"X-Amz-Acl": "public-read"}
	g.do(t, "PUT", "/box/k?acl", public).want(t, "enforced", 400, code("AccessControlListNotSupported"))
	g.send(t, "PUT", "/box/n", "", "x", public).want(t, "enforced", 400, code("AccessControlListNotSupported"))
	g.do(t, "PUT", "/new", public).want(t, "enforced", 400, code("AccessControlListNotSupported"))
	g.send(t, "PUT", "/box/n", "", "x", map[string]string{"X-Amz-Acl": "bucket-owner-full-control"}).want(t, "the owner's", 200)
	g.doBody(t, "PUT", "/box?ownershipControls", ownership).want(t, "preferred", 200)
	g.do(t, "PUT", "/box/k?acl", public).want(t, "public", 200)
	g.do(t, "GET", "/box/k?acl", nil).want(t, "get", 200, groupAll, "<Permission>READ</Permission>", "FULL_CONTROL")
	g.anonymous(t, "GET", "/box/k").want(t, "anonymous", 200)
	g.anonymous(t, "GET", "/box/n").want(t, "anonymous", 403)
	g.send(t, "PUT", "/box/n", "", "x", public).want(t, "at the write", 200)
	g.anonymous(t, "GET", "/box/n").want(t, "anonymous", 200)
	g.anonymous(t, "GET", "/box").want(t, "list", 403)
	text := strings.NewReplacer("ID", "<ID>"+g.ID.String()+"</ID>", "URI", "<URI>http://acs.amazonaws.com/groups/global/AllUsers</URI>").Replace(
		"<AccessControlPolicy><AccessControlList><Grant><Grantee>ID</Grantee><Permission>FULL_CONTROL</Permission></Grant>" +
			"<Grant><Grantee>URI</Grantee><Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>")
	g.doBody(t, "PUT", "/box?acl", text).want(t, "by XML", 200)
	g.do(t, "GET", "/box?acl", nil).want(t, "get", 200, groupAll)
	g.anonymous(t, "GET", "/box").want(t, "list", 200, "<Key>k</Key>")
	g.do(t, "PUT", "/box?acl", map[string]string{"X-Amz-Grant-Write": `uri="http://acs.amazonaws.com/groups/global/AllUsers"`}).want(t, "by headers", 200)
	g.anonymous(t, "GET", "/box").want(t, "list", 403)
	for name, c := range map[string]struct {
		header map[string]string
		body   string
		code   string
	}{
		"unknown name":   {map[string]string{"X-Amz-Acl": "everything"}, "", "InvalidArgument"},
		"two":            {with(public, map[string]string{"X-Amz-Grant-Read": "id=" + g.ID.String()}), "", "InvalidRequest"},
		"a body, too":    {public, text, "UnexpectedContent"},
		"none":           {nil, "", "MissingSecurityHeader"},
		"another VM":     {nil, strings.Replace(text, g.ID.String(), "someone", 1), "InvalidArgument"},
		"a mail address": {map[string]string{"X-Amz-Grant-Read": `emailAddress="a@example.com"`}, "", "UnresolvableGrantByEmailAddress"},
		"no XML":         {nil, "<A/>", "MalformedACLError"},
		"permission":     {nil, strings.Replace(text, "READ", "SEE", 1), "MalformedACLError"},
	} {
		if got := g.send(t, "PUT", "/box/k?acl", "", c.body, c.header); got.status != 400 || !strings.Contains(got.body, code(c.code)) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	g.do(t, "PUT", "/box/k?tagging", public).want(t, "at tags", 400, code("InvalidArgument"))
	g.do(t, "GET", "/box/k", public).want(t, "at a GET", 400, code("InvalidArgument"))
	block := func(name string) string {
		return "<PublicAccessBlockConfiguration><" + name + ">true</" + name + "></PublicAccessBlockConfiguration>"
	}
	g.doBody(t, "PUT", "/box?publicAccessBlock", block("IgnorePublicAcls")).want(t, "ignore", 200)
	g.anonymous(t, "GET", "/box/k").want(t, "ignored", 403)
	g.doBody(t, "PUT", "/box?publicAccessBlock", block("BlockPublicAcls")).want(t, "block", 200)
	g.do(t, "PUT", "/box/k?acl", public).want(t, "blocked", 403, code("AccessDenied"))
	g.anonymous(t, "GET", "/box/k").want(t, "an older one", 200)
	g.doBody(t, "PUT", "/box?ownershipControls", strings.Replace(ownership, "Preferred", "Enforced", 1)).want(t, "enforced", 200)
	g.anonymous(t, "GET", "/box/k").want(t, "none counts", 403)
}

const ownership = "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerPreferred</ObjectOwnership></Rule></OwnershipControls>"

const groupAll = "<URI>http://acs.amazonaws.com/groups/global/AllUsers</URI>"

// A fork of a VM has its policies, which bind it like the one that they name, and reads what the host sealed.
func TestPolicyOfFork(t *testing.T) {
	h := newHost(t)
	g, fork := h.guest("blog"), h.guest("copy")
	g.send(t, "PUT", "/box/secret", "", "x", nil).want(t, "put", 200)
	g.send(t, "PUT", "/box/sealed", "", plainText, byHost).want(t, "put", 200)
	g.doBody(t, "PUT", "/box?policy", policyOf(`{"Effect": "Deny", "Principal": {"AWS": "`+g.ID.String()+`"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/secret"}`)).
		want(t, "set", 204)
	release, err := h.objects.Snapshot(g.ID, "at")
	gatewaytest.Must(t, err)
	release()
	gatewaytest.Must(t, h.objects.Fork(g.ID, "at", fork.ID))
	fork.do(t, "GET", "/box/secret", nil).want(t, "denied", 403, code("AccessDenied"))
	if got := fork.do(t, "GET", "/box/sealed", nil); got.body != plainText {
		t.Errorf("sealed: %d %q", got.status, got.body)
	}
}
