package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// An alias that is a name keeps VMs from that name, in the file as well; all settings survive, and vanish
// with the VM.
func TestMailSettingsFollowTheVM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := opened(t, path, "10.213.0.0/24")
	blog := named("blog")
	blog.Mail = gateway.MailSettings{
		Off: true, QuotaBytes: 1 << 30, Keep: time.Hour, Wake: true, RefuseRejected: true, AllowFrom: []string{"@example.org"},
		Aliases:   []string{"shop", "sales@"},
		Addresses: []gateway.MailAddress{{Local: gateway.NewMailLocal(), From: []string{"@example.org"}, Label: "x", Expires: time.Unix(1e9, 0).UTC()}},
	}
	blog, err := s.Create(t.Context(), blog)
	gatewaytest.Must(t, err)
	claimed(t, s, "name/blog", "name/shop", "local/sales", "addr/10.213.0.2")
	gatewaytest.Must(t, s.Close())

	s = opened(t, path, "10.213.0.0/24")
	all, err := s.VMs(t.Context())
	gatewaytest.Must(t, err)
	if diff := cmp.Diff(blog.Mail, all[0].Mail); diff != "" {
		t.Fatalf("after reopening: %s", diff)
	}
	third := named("third")
	for _, aliases := range [][]string{{"shop"}, {"sales@"}, {"blog"}} {
		third.Mail.Aliases = aliases
		if _, err := s.Create(t.Context(), third); gateway.KindOf(err) != gateway.KindTaken {
			t.Errorf("a new VM with the alias %v: %v", aliases, err)
		}
	}
	if _, err := s.Create(t.Context(), named("shop")); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("a new VM with an alias's name: %v", err)
	}
	blog.Desired = gateway.Removed
	gatewaytest.Must(t, s.Save(t.Context(), blog))
	if _, err := s.shared.Get(t.Context(), "local/sales"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("after the removal: %v", err)
	}
	_, err = s.Create(t.Context(), named("shop"))
	gatewaytest.Must(t, err)
}
