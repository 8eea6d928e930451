package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
)

// resolverOf asks a server that has the records, in the format of zone files, and follows aliases as
// resolvers do.
func resolverOf(t *testing.T, records ...string) *net.Resolver {
	t.Helper()
	var all []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		gatewaytest.Must(t, err)
		all = append(all, rr)
	}
	c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	server := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetReply(query)
		reply.RecursionAvailable = true
		name, known := dns.CanonicalName(query.Question[0].Name), false
		for _, rr := range all { // an alias stands before its target
			if dns.CanonicalName(rr.Header().Name) != name {
				continue
			}
			known = true
			if t := rr.Header().Rrtype; t == query.Question[0].Qtype || t == dns.TypeCNAME {
				reply.Answer = append(reply.Answer, rr)
			}
			if alias, ok := rr.(*dns.CNAME); ok {
				name, known = dns.CanonicalName(alias.Target), false
			}
		}
		if !known {
			reply.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(reply) // the resolver asks again
	})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ActivateAndServe() }) // ends by Shutdown
	<-started                                            // before that, Shutdown does nothing
	t.Cleanup(func() {
		_ = server.Shutdown() // the test is over
		serving.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
}

func TestDoctorOnNames(t *testing.T) {
	for name, tt := range map[string]struct {
		domain, listen, record string
		want                   api.Grade
	}{
		"local":                {"lodge.localhost", "127.0.0.1", "", api.Fine},
		"to this host":         {"vm.example", "192.0.2.1", "192.0.2.1", api.Fine},
		"to another host":      {"vm.example", "192.0.2.1", "192.0.2.2", api.Broken},
		"no record":            {"vm.example", "192.0.2.1", "", api.Broken},
		"behind NAT":           {"vm.example", "10.0.0.1", "192.0.2.1", api.Warning},
		"listens on loopback":  {"vm.example", "127.0.0.1", "192.0.2.1", api.Warning},
		"to a private address": {"vm.example", "10.0.0.1", "10.0.0.1", api.Fine},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaultConfig()
			cfg.Domain, cfg.Listen = tt.domain, []netip.Addr{netip.MustParseAddr(tt.listen)}
			var records []string
			if tt.record != "" {
				records = []string{"a-vm." + tt.domain + ". A " + tt.record}
			}
			d := &doctor{cfg: cfg, resolver: resolverOf(t, records...)}
			_, f := d.examineName(t.Context(), "a-vm."+tt.domain)
			if f.Grade != tt.want || f.Check != "dns *."+tt.domain || (f.Fix == "") != (tt.want == api.Fine) {
				t.Errorf("%+v, want %s", f, tt.want)
			}
		})
	}
}

// The record by which the responder proves the domain is of no use to other challenges.
func TestDoctorOnTheDelegation(t *testing.T) {
	const alias = "_acme-challenge.vm.example. CNAME vm.acme.example.net."
	for name, tt := range map[string]struct {
		challenge, zone string
		records         []string
		want            []api.Grade
		text, fix       string
	}{
		"to this host": {"responder", "", []string{"_acme-challenge.vm.example. NS VM.example."}, []api.Grade{api.Fine}, "", ""},
		"to another name of this host": {
			"responder", "",
			[]string{"_acme-challenge.vm.example. NS ns.example.net.", "ns.example.net. A 192.0.2.1"},
			[]api.Grade{api.Fine},
			"", "",
		},
		"to another host": {
			"responder", "",
			[]string{"_acme-challenge.vm.example. NS ns.example.net.", "ns.example.net. A 192.0.2.9"},
			[]api.Grade{api.Warning},
			"ns.example.net leads to 192.0.2.9", "NS record for _acme-challenge.vm.example, to vm.example",
		},
		"to no host": {
			"responder", "",
			[]string{"_acme-challenge.vm.example. NS ns.example.net."},
			[]api.Grade{api.Warning},
			"ns.example.net: ", "NS record for _acme-challenge.vm.example, to vm.example",
		},
		"to two hosts": {
			"responder", "",
			[]string{
				"_acme-challenge.vm.example. NS vm.example.", "_acme-challenge.vm.example. NS ns.example.net.", "ns.example.net. A 192.0.2.9",
			},
			[]api.Grade{api.Warning},
			"this host: ns.example.net leads to 192.0.2.9", "only one NS record",
		},
		"by an alias": {
			"responder", "vm.acme.example.net", []string{alias, "vm.acme.example.net. NS vm.example."}, []api.Grade{api.Fine}, "", "",
		},
		"without the alias": {
			"responder", "vm.acme.example.net",
			[]string{"vm.acme.example.net. NS vm.example."},
			[]api.Grade{api.Broken},
			"no such host", "CNAME record for _acme-challenge.vm.example to vm.acme.example.net. ",
		},
		"by a wrong alias": {
			"responder", "v2.acme.example.net",
			[]string{alias, "v2.acme.example.net. NS vm.example."},
			[]api.Grade{api.Broken},
			"no such host", "CNAME record for _acme-challenge.vm.example to v2.acme.example.net. ",
		},
		"no record":         {"responder", "", nil, []api.Grade{api.Broken}, "no such host", "NS record"},
		"another challenge": {"exec", "", nil, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaultConfig()
			cfg.Domain, cfg.MailOut, cfg.ACME = "vm.example", false, &acmeConfig{Challenge: tt.challenge}
			cfg.ACME.Responder.Zone = tt.zone
			cfg.ACME.setDefaults(cfg.Domain)
			host := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
			found := (&doctor{cfg: cfg, resolver: resolverOf(t, tt.records...)}).examineDelegation(t.Context(), host)
			var got []api.Grade
			for _, f := range found {
				got = append(got, f.Grade)
				if f.Check != "dns _acme-challenge.vm.example" || (f.Fix == "") != (f.Grade == api.Fine) ||
					!strings.Contains(f.Text, tt.text) || !strings.Contains(f.Fix, tt.fix) {
					t.Errorf("%+v", f)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The keys of mail may be records of the domain, so no delegation is no finding.
func TestDoctorOnTheKeysOfMail(t *testing.T) {
	const proof = "_acme-challenge.vm.example. NS vm.example."
	for name, tt := range map[string]struct {
		mailOut bool
		records []string
		want    []string
	}{
		"not delegated": {true, []string{"a._domainkey.vm.example. TXT key"}, nil},
		"to this host":  {true, []string{"_domainkey.vm.example. NS vm.example."}, []string{"ok dns _domainkey.vm.example"}},
		"to another host": {
			true,
			[]string{"_domainkey.vm.example. NS ns.example.net.", "ns.example.net. A 192.0.2.9"},
			[]string{"warning dns _domainkey.vm.example"},
		},
		"without mail": {false, []string{"_domainkey.vm.example. NS ns.example.net."}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaultConfig()
			cfg.Domain, cfg.MailOut, cfg.ACME = "vm.example", tt.mailOut, &acmeConfig{Challenge: "responder"}
			cfg.ACME.setDefaults(cfg.Domain)
			var got []string
			for _, f := range (&doctor{cfg: cfg, resolver: resolverOf(t, append(tt.records, proof)...)}).examineDelegation(t.Context(), nil) {
				got = append(got, fmt.Sprintf("%s %s", f.Grade, f.Check))
			}
			if diff := cmp.Diff(append([]string{"ok dns _acme-challenge.vm.example"}, tt.want...), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDoctorOnCertificates(t *testing.T) {
	now := time.Now()
	leaf := func(left time.Duration) func() (*x509.Certificate, error) {
		return func() (*x509.Certificate, error) {
			return &x509.Certificate{NotBefore: now.Add(left - 90*24*time.Hour), NotAfter: now.Add(left)}, nil
		}
	}
	for name, tt := range map[string]struct {
		challenge string
		wildcard  func() (*x509.Certificate, error)
		want      api.Grade
		text      string
	}{
		"own authority": {"", nil, api.Fine, "own authority"},
		"no wildcard":   {"http", leaf(0), api.Fine, "each name"},
		"valid":         {"exec", leaf(60 * 24 * time.Hour), api.Fine, "60 days"},
		"late":          {"exec", leaf(10 * 24 * time.Hour), api.Warning, "10 days"},
		"none":          {"exec", func() (*x509.Certificate, error) { return nil, errors.New("no such zone") }, api.Broken, "no such zone"},
	} {
		cfg := defaultConfig()
		cfg.ACME = &acmeConfig{Challenge: tt.challenge}
		f := (&doctor{cfg: cfg, wildcard: tt.wildcard}).examineCertificate(now)
		if f.Grade != tt.want || !strings.Contains(f.Text, tt.text) || tt.want != api.Fine && f.Fix == "" {
			t.Errorf("%s: %+v, want %s", name, f, tt.want)
		}
	}
}

func TestDoctorOnIdentity(t *testing.T) {
	for name, tt := range map[string]struct {
		domain string
		port   int
		acme   *acmeConfig
		text   string
	}{
		"local":          {"lodge.localhost", 443, nil, "cannot verify them"},
		"own authority":  {"vm.example", 443, nil, "/var/lib/lodge/ca/root.crt"},
		"another port":   {"vm.example", 8443, new(acmeConfig), "https://vm.example:8443 can verify them, unless"},
		"for all to see": {"vm.example", 443, new(acmeConfig), "https://vm.example can verify them"},
	} {
		cfg := defaultConfig()
		cfg.Domain, cfg.HTTPSPort, cfg.ACME = tt.domain, tt.port, tt.acme
		if f := (&doctor{cfg: cfg}).examineIdentity(); f.Grade != api.Fine || !strings.Contains(f.Text, tt.text) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestDoctorOnPorts: two ports answer, one does not.
func TestDoctorOnPorts(t *testing.T) {
	cfg := defaultConfig()
	for _, port := range []*int{&cfg.HTTPPort, &cfg.HTTPSPort, &cfg.SMTPPort} {
		l, err := listenTCP(t.Context(), nil, "", netip.AddrPortFrom(cfg.Listen[0], 0))
		gatewaytest.Must(t, err)
		*port = l.Addr().(*net.TCPAddr).Port
		if port == &cfg.SMTPPort {
			gatewaytest.Must(t, l.Close())
		} else {
			t.Cleanup(func() { _ = l.Close() }) // the test is over
		}
	}
	var got []string
	for _, f := range (&doctor{cfg: cfg, resolver: net.DefaultResolver}).Examine(t.Context()) {
		got = append(got, fmt.Sprintf("%s %s", f.Grade, f.Check))
	}
	want := []string{"ok dns lodge.localhost", "ok dns *.lodge.localhost", "ok port 80", "ok port 443", "broken port 25", "ok certificate", "ok identity tokens"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
