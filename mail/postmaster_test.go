package mail

import (
	"strings"
	"testing"

	"lodge/gateway"
)

// Mail for the domain itself is the operator's, and no VM's.
func TestPostmaster(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	for _, to := range []string{"postmaster", "POSTMASTER@lodge.localhost", "abuse@Lodge.localhost", "postmaster@blog.lodge.localhost"} {
		c.ask("RCPT TO:<"+to+">", "250")
	}
	c.ask("RCPT TO:<root@lodge.localhost>", "550 5.7.1")
	c.ask("DATA", "354")
	c.ask("Subject: help\r\n\r\nx\r\n.", "250 2.0.0 OK: queued as ")
	operator := f.list(t, gateway.Postmaster())
	if len(operator) != 3 || len(f.list(t, vm)) != 1 {
		t.Fatalf("the operator has %+v", operator)
	}
	got := string(f.read(t, gateway.Postmaster(), operator[2].QueueID))
	if !strings.Contains(got, "\tfor <postmaster>; ") || operator[2].Rcpt != "postmaster" {
		t.Errorf("got %q", got)
	}
	removed, err := f.RemoveMessages(t.Context(), gateway.Postmaster().ID, gateway.MailRemoval{QueueIDs: []string{operator[2].QueueID}})
	if err != nil || removed.Messages != 1 || removed.Waiting != 0 || len(f.list(t, gateway.Postmaster())) != 2 {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if _, err := f.RemoveMessages(t.Context(), vm.ID, gateway.MailRemoval{All: true}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("mail that waits: %v", err)
	}
	if err := f.Remove(t.Context(), vm.ID); err == nil {
		t.Error("the mailbox of a running VM was removed")
	}
}
