package storage

import (
	"testing"

	"lodge/gateway/gatewaytest"
)

const restricted = "<PublicAccessBlockConfiguration><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>"

// A public access block closes websites too, with their redirects: the answer is that for no bucket at all.
func TestRestrictedWebsite(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.do(t, "PUT", "/box", nil).want(t, "make", 200)
	o := h.outside(noVM())
	want := o.ask(t, "GET", "none.none.s3", "/")
	for name, site := range map[string]string{
		"all": "<WebsiteConfiguration><RedirectAllRequestsTo><HostName>example.com</HostName></RedirectAllRequestsTo></WebsiteConfiguration>", "rules": siteXML,
	} {
		g.doBody(t, "PUT", "/box?website", site).want(t, name, 200)
		o.ask(t, "GET", "box.blog.s3", "/old/a").want(t, name+": open", 301)
		g.doBody(t, "PUT", "/box?publicAccessBlock", restricted).want(t, "restrict", 200)
		if got := o.ask(t, "GET", "box.blog.s3", "/old/a"); got.shape() != want.shape() {
			t.Errorf("%s: restricted: %s", name, got.shape())
		}
		g.do(t, "DELETE", "/box?publicAccessBlock", nil).want(t, "remove", 204)
	}
}

// What nobody may do anything with takes none of the VM's places, whatever its settings are.
func TestClosedByPolicyTakesNoPlace(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.send(t, "PUT", "/box/k", "", "x", nil).want(t, "put", 200)
	for range 128 {
		_, leave, err := h.admission.enter(t.Context(), g.ID, atOutside, false)
		gatewaytest.Must(t, err)
		defer leave()
	}
	o := h.outside(noVM())
	deny := `{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}`
	own := `{"Effect": "Allow", "Principal": {"AWS": "` + g.ID.String() + `"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}`
	for _, policy := range []string{policyOf(deny), policyOf(own), policyOf(deny, own)} {
		g.doBody(t, "PUT", "/box?policy", policy).want(t, "set", 204)
		o.ask(t, "GET", "box.blog.s3", "/k").want(t, "closed", 403)
	}
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll)).want(t, "set", 204)
	o.ask(t, "GET", "box.blog.s3", "/public/k").want(t, "open", 503)
	g.doBody(t, "PUT", "/box?publicAccessBlock", restricted).want(t, "restrict", 200)
	o.ask(t, "GET", "box.blog.s3", "/public/k").want(t, "restricted", 403)
}
