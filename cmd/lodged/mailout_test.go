package main

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"lodge/gateway/gatewaytest"
	"lodge/https/acme"
	"lodge/mail"
)

// The name server of the domain answers for the keys of the mail that leaves, as lodge mail dns prints them.
func TestPublishKeys(t *testing.T) {
	cfg := defaultConfig()
	cfg.Domain, cfg.StateDir, cfg.ACME = "vm.example", t.TempDir(), &acmeConfig{Challenge: "responder"}
	out, err := mailOut(cfg)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.MkdirAll(cfg.path("mail"), 0o700))
	m, err := mail.New(mail.Config{
		Dir: cfg.path("mail"), Domain: cfg.Domain, Directory: gatewaytest.NewDirectory(t, new(gatewaytest.Records)),
		Out: out, Logger: slog.New(slog.DiscardHandler),
	})
	gatewaytest.Must(t, err)
	defer func() { gatewaytest.Must(t, m.Shutdown(t.Context())) }()
	r := acme.NewResponder("_acme-challenge.vm.example", cfg.Domain, slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, publishKeys(r, m, cfg))
	gatewaytest.Must(t, publishKeys(nil, m, cfg)) // no name server
	l := listenAny(t)
	ended := make(chan error, 1)
	go func() { ended <- r.ServeTCP(l) }()
	client := dns.Client{Net: "tcp"}
	records, err := m.DNSRecords("")
	gatewaytest.Must(t, err)
	keys := 0
	for _, want := range records {
		if !strings.Contains(want.Name, "._domainkey.") {
			continue
		}
		keys++
		if !strings.HasSuffix(want.Why, "; in place of all keys, one record: _domainkey.vm.example. NS vm.example.") {
			t.Errorf("%s: %s: the delegation is missing", want.Name, want.Why)
		}
		reply, _, err := client.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(want.Name, dns.TypeTXT), l.Addr().String())
		gatewaytest.Must(t, err)
		if len(reply.Answer) != 1 || !strings.HasSuffix(reply.Answer[0].String(), "\tTXT\t"+want.Value) {
			t.Errorf("%s: %v, want %s", want.Name, reply, want.Value)
		}
	}
	if keys != 2 {
		t.Errorf("%d keys, want 2", keys)
	}
	gatewaytest.Must(t, l.Close())
	gatewaytest.Must(t, <-ended)
}
