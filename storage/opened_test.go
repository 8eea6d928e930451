package storage

import (
	"slices"
	"testing"

	"lodge/gateway/gatewaytest"
)

// Usage names what of a bucket's own settings opens it to everyone.
func TestOpened(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	put(t, g.dummy(), "box", "x", nil)
	put(t, g.dummy(), "other", "x", nil)
	for _, step := range []struct {
		what, path, text string
		want             []string
	}{
		{"a narrow policy", "policy", policyOf(`{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.1"}}}`), nil},
		{"a policy", "policy", policyOf(`{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}`), []string{"policy"}},
		{"lists", "ownershipControls", "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>", []string{"policy", "acl"}},
		{"a website", "website", "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument></WebsiteConfiguration>", []string{"policy", "acl", "website"}},
		{"a block of lists", "publicAccessBlock", "<PublicAccessBlockConfiguration><IgnorePublicAcls>true</IgnorePublicAcls></PublicAccessBlockConfiguration>", []string{"policy", "website"}},
		{"a block of all", "publicAccessBlock", "<PublicAccessBlockConfiguration><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>", nil},
	} {
		if got := g.doBody(t, "PUT", "/box?"+step.path, step.text); got.status/100 != 2 {
			t.Fatalf("%s: %d %s", step.what, got.status, got.body)
		}
		_, buckets, err := h.Usage(t.Context(), g.ID)
		gatewaytest.Must(t, err)
		if got := buckets["box"].Open; !slices.Equal(got, step.want) || len(buckets["other"].Open) > 0 {
			t.Errorf("%s: open by %q, want %q", step.what, got, step.want)
		}
	}
}
