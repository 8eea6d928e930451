package apex

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/https/access"
)

// A proven address logs in who has it, or who may be added by its domain; nobody else.
func TestProvenAddresses(t *testing.T) {
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = db.Close() }) // the test is over
	book, err := people.Open(t.Context(), db.Shared(), "ann@example.org")
	gatewaytest.Must(t, err)
	h := &Handler{Config: Config{
		Policy: access.Policy{People: book}, Logger: slog.New(slog.DiscardHandler),
		Admits: func(domain string) bool { return domain == "example.net" },
	}}
	for _, tt := range []struct {
		address, mail string
		kind          gateway.Kind
	}{
		{"Ann@Example.ORG", "ann@example.org", ""},
		{"bob@example.net", "bob@example.net", ""},
		{"bob@example.org", "", gateway.KindDenied},
		{"eve@notexample.net", "", gateway.KindDenied},
		{"x", "", gateway.KindInvalid},
	} {
		p, err := h.proven(t.Context(), tt.address)
		if p.Address != tt.mail || tt.mail == "" && gateway.KindOf(err) != tt.kind || tt.mail != "" && err != nil {
			t.Errorf("%s: %+v, %v", tt.address, p, err)
		}
	}
	if bob, ok := book.ByMail("bob@example.net"); !ok || bob.Role != people.Guest || len(book.All()) != 2 {
		t.Errorf("the people: %+v", book.All())
	}
}
