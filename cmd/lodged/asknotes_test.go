package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
)

// Who may manage the VM gets a note of a request, with the page that answers it; nobody does if the VM is gone.
func TestAskNotes(t *testing.T) {
	t.Parallel()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	book, err := people.Open(t.Context(), db.Shared(), "owner@example.org")
	gatewaytest.Must(t, err)
	var grants []gateway.Grant
	for mail, level := range map[string]gateway.Level{"ada@example.com": gateway.Manage, "bob@example.com": gateway.Use} {
		p, _, err := book.Add(t.Context(), mail, people.Guest)
		gatewaytest.Must(t, err)
		grants = append(grants, gateway.Grant{To: p.ID, Level: level})
	}
	blog := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Grants: grants}
	notes := newAskNotes(gatewaytest.NewDirectory(t, new(gatewaytest.Records), blog), book, new(gatewaytest.Log).Logger())
	sent := make(chan gateway.Notice, 10)
	notes.notify = func(_ context.Context, n gateway.Notice) error { sent <- n; return nil }
	notes.url = func(id string) string { return "https://example.org/" + id }
	for range 2 * maxAskNotes { // nobody reads yet: what is too much is left out, and nothing waits
		notes.asked(gateway.AccessRequest{VM: gateway.NewID()})
	}
	if len(notes.queue) != maxAskNotes {
		t.Errorf("%d wait", len(notes.queue))
	}
	notes.start()
	gatewaytest.WaitFor(t, "room", func() bool { return len(notes.queue) == 0 })
	notes.asked(gateway.AccessRequest{ID: "0123", VM: blog.ID, Host: "blog.example.org", Address: "eve@example.net"})
	var to []string
	for range 2 {
		n := <-sent
		to = append(to, n.To)
		if n.Kind != gateway.NoticeAccess || n.VM != blog.ID || !strings.Contains(n.Text, "eve@example.net asks to open blog.example.org.") ||
			!strings.Contains(n.Text, "it may be anyone") || !strings.Contains(n.Text, "\nhttps://example.org/0123\n") {
			t.Errorf("%+v", n)
		}
	}
	if !slices.Equal(to, []string{"ada@example.com", "owner@example.org"}) {
		t.Errorf("sent to %v", to)
	}
	gatewaytest.Must(t, notes.shutdown(t.Context()))
	if len(sent) != 0 {
		t.Errorf("%d more", len(sent))
	}
}
