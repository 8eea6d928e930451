package api_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
)

// twoLinks has a link to the VM's page and one to its bucket photos, and notes which of them is
// removed.
type twoLinks struct {
	noPasses

	removed *[]string
}

func (l twoLinks) Passes(_ context.Context, _ gateway.ID, kind gateway.PassKind) ([]gateway.Pass, error) {
	return []gateway.Pass{{ID: "page", Kind: kind}, {ID: "photos", Kind: kind, Bucket: "photos"}}, nil
}

func (l twoLinks) RemovePass(_ context.Context, _ gateway.ID, _ gateway.PassKind, id string) error {
	*l.removed = append(*l.removed, id)
	return nil
}

// A share of a bucket opens that bucket, and no port; its end removes its links alone.
func TestShareBucket(t *testing.T) {
	a, log := sharing(t)
	var removed []string
	a.Passes, a.S3URL = twoLinks{removed: &removed}, "https://s3.lodge.localhost:8443"
	s := a.As(api.Owner())
	to := api.Sharing{Share: api.Share{Bucket: "photos", Visibility: gateway.People, With: []string{"Ada@example.com", "@example.org"}}}
	vm, err := s.Share(t.Context(), "blog", to)
	gatewaytest.Must(t, err)
	if vm.URL != "https://photos.blog.s3.lodge.localhost:8443/" || len(vm.Shares) != 0 || len(vm.Buckets) != 1 || !slices.Equal(vm.Buckets[0].With, []string{"ada@example.com", "@example.org"}) {
		t.Errorf("shared: %+v", vm)
	}
	if log.Count("bucket=photos") != 1 {
		t.Errorf("no record of the bucket in\n%s", log)
	}
	m, _ := a.Directory.ByName("blog")
	if ada, _ := a.People.ByMail("ada@example.com"); a.People.BucketLevel(ada.ID, m, "photos") != gateway.View || a.People.BucketLevel(ada.ID, m, "other") != gateway.NoLevel || a.People.MayOpen(ada.ID, m, 0) {
		t.Errorf("the share opens something else: %+v", m.S3)
	}
	if !m.SharedWithDomain("example.org") || m.SharedWithDomain("example.net") {
		t.Error("who has an address of the domain cannot log in")
	}
	inside, err := a.As(api.VMCaller(m.Identity)).Show(t.Context(), "blog")
	if err != nil || len(inside.Buckets) != 1 || inside.Buckets[0].With != nil {
		t.Errorf("the VM's programs see %+v, %v", inside.Buckets, err)
	}
	to.Share = api.Share{Bucket: "photos", Visibility: gateway.Link}
	_, err = s.Share(t.Context(), "blog", to)
	gatewaytest.Must(t, err)
	removed = nil
	to.Visibility = gateway.Private
	_, err = s.Share(t.Context(), "blog", to)
	gatewaytest.Must(t, err)
	if m, _ = a.Directory.ByName("blog"); !slices.Equal(removed, []string{"photos"}) || len(m.S3.Shares) != 0 || m.ShareRev != 3 {
		t.Errorf("removed %q, left %+v, revision %d", removed, m.S3.Shares, m.ShareRev)
	}
	if _, err := s.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Bucket: "photos", Visibility: gateway.Public}, Rev: 2}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("an old revision: %v", err)
	}
}

func TestBadSharesOfBuckets(t *testing.T) {
	a, _ := sharing(t)
	s := a.As(api.Owner())
	for _, share := range []api.Share{
		{Bucket: "x"}, {Bucket: "A_B"}, {Bucket: "../photos"}, {Bucket: "pho\x00tos"}, {Bucket: strings.Repeat("x", 64)}, {Bucket: "photos", Port: 80},
	} {
		share.Visibility = gateway.Public
		if _, err := s.Share(t.Context(), "blog", api.Sharing{Share: share}); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%+v: %v", share, err)
		}
	}
	for i := range gateway.MaxShares + 1 {
		_, err := s.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Bucket: fmt.Sprintf("b-%d", i), Visibility: gateway.Public}})
		if full := i == gateway.MaxShares; full != (gateway.KindOf(err) == gateway.KindConflict) {
			t.Fatalf("share %d: %v", i, err)
		}
	}
	if _, err := s.NewPass(t.Context(), "blog", gateway.LinkPass, api.PassSpec{Bucket: "b-1"}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a link to a public bucket: %v", err)
	}
}

// Grants are of a bucket, to a VM that the caller may use; those to removed VMs make room.
func TestGrantBucket(t *testing.T) {
	a, log := sharing(t)
	s := a.As(api.Owner())
	all, err := s.GrantBucket(t.Context(), "blog", "photos", "web", gateway.ReadBucket)
	if err != nil || len(all) != 1 || all[0] != (api.BucketGrant{VM: "blog", Bucket: "photos", To: "web", Access: gateway.ReadBucket, Name: "blog_photos"}) {
		t.Fatalf("granted: %+v, %v", all, err)
	}
	if log.Count("event=s3.granted") != 1 {
		t.Errorf("no record in\n%s", log)
	}
	ada, _, err := a.People.Add(t.Context(), "ada@example.com", "")
	gatewaytest.Must(t, err)
	_, err = s.Grant(t.Context(), "blog", api.Grant{Who: ada.Mail, Level: gateway.Manage})
	gatewaytest.Must(t, err)
	for what, to := range map[string]string{"a VM that she may not use": "web", "one that does not exist": "none"} {
		if _, err := a.As(api.PersonCaller(ada.ID)).GrantBucket(t.Context(), "blog", "photos", to, gateway.WriteBucket); gateway.KindOf(err) != gateway.KindDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, access := range []gateway.BucketAccess{"rule", "none"} {
		if _, err := s.GrantBucket(t.Context(), "blog", "photos", "web", access); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%q: %v", access, err)
		}
	}
	m, _ := a.Directory.ByName("web")
	for i := range gateway.MaxBucketGrants {
		_, err := s.GrantBucket(t.Context(), "blog", fmt.Sprintf("b-%d", i), "web", gateway.ReadBucket)
		if full := i == gateway.MaxBucketGrants-1; full != (gateway.KindOf(err) == gateway.KindConflict) {
			t.Fatalf("grant %d: %v", i, err)
		}
	}
	gatewaytest.Must(t, a.Directory.Delete(t.Context(), m.ID))
	if all, err = s.BucketGrants(t.Context(), "blog"); err != nil || len(all) != 0 {
		t.Errorf("after the other VM's removal: %+v, %v", all, err)
	}
}
