package inbound

import (
	"log/slog"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/journal"
	"lodge/mail/smtpd"
)

// What is refused is in the log of its VM, as often as the rate of its net is.
func TestRefusedHasRate(t *testing.T) {
	t.Parallel()
	vms := []gateway.VM{
		{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running},
		{Identity: gateway.Identity{ID: gateway.NewID(), Name: "shop"}, Desired: gateway.Running},
	}
	p := New(Config{
		Domain: "lodge.localhost", Directory: gatewaytest.NewDirectory(t, new(gatewaytest.Records), vms...),
		Journal: journal.Open(t.TempDir(), slog.New(slog.DiscardHandler)), Logger: slog.New(slog.DiscardHandler),
	})
	defer p.config.Journal.Close()
	now := time.Now()
	for _, step := range []struct {
		what     string
		vm       gateway.Identity
		client   smtpd.Client
		after    time.Duration
		expected int // of the attempts, which are one more than the burst
	}{
		{"a client", vms[0].Identity, smtpd.Client{Remote: "192.0.2.1"}, 0, refusedBurst},
		{"one beside it", vms[0].Identity, smtpd.Client{Remote: "192.0.2.2"}, 0, 0},
		{"of another net", vms[0].Identity, smtpd.Client{Remote: "192.0.3.1"}, 0, refusedBurst},
		{"of IPv6", vms[0].Identity, smtpd.Client{Remote: "2001:db8::1"}, 0, refusedBurst},
		{"one beside that", vms[0].Identity, smtpd.Client{Remote: "2001:db8:0:ff::1"}, 0, 0},
		{"at another VM", vms[1].Identity, smtpd.Client{Remote: "192.0.2.1"}, 0, refusedBurst},
		{"at no VM", gateway.Identity{}, smtpd.Client{Remote: "192.0.2.1"}, 0, refusedBurst},
		{"of no address", vms[0].Identity, smtpd.Client{Remote: "pipe"}, 0, refusedBurst},
		{"a VM", vms[0].Identity, smtpd.Client{VM: vms[1].Identity, Remote: "192.0.2.1"}, 0, refusedBurst},
		{"a minute later", vms[0].Identity, smtpd.Client{Remote: "192.0.2.1"}, time.Minute, 1},
	} {
		logged := step.vm.ID
		if !step.vm.Known() {
			logged = gateway.Postmaster().ID
		}
		before, err := p.config.Journal.List(logged, 0)
		gatewaytest.Must(t, err)
		for range refusedBurst + 1 {
			p.refusedAt(now.Add(step.after), step.vm, step.client, smtpd.Envelope{}, smtpd.Path{Local: "x", Domain: "y"}, replyUnknown())
		}
		after, err := p.config.Journal.List(logged, 0)
		gatewaytest.Must(t, err)
		if n := len(after) - len(before); n != step.expected {
			t.Errorf("%s: %d in the log, want %d", step.what, n, step.expected)
		}
	}
}
