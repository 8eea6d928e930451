package acme

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lodge/gateway/gatewaytest"
	"lodge/https/acme/acmetest"
)

// TestWildcard proves the domain by each kind of Records. The HTTP and TLS ports are ones that
// nothing listens at.
func TestWildcard(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) (*acmetest.Pebble, Records){
		"RFC 2136": func(t *testing.T) (*acmetest.Pebble, Records) {
			t.Helper()
			update := startKnot(t)
			return acmetest.Start(t, acmetest.Config{HTTPPort: 1, TLSPort: 1, DNS: update.Server}), update
		},
		"hook": func(t *testing.T) (*acmetest.Pebble, Records) {
			t.Helper()
			p := acmetest.Start(t, acmetest.Config{HTTPPort: 1, TLSPort: 1})
			return p, &Hook{Program: writeHook(t, `case $1 in
				present) curl -sS -d "{\"host\":\"$2.\",\"value\":\"$3\"}" `+p.DNSAdmin+`/set-txt ;;
				cleanup) curl -sS -d "{\"host\":\"$2.\"}" `+p.DNSAdmin+`/clear-txt ;;
				esac`)}
		},
		"responder": func(t *testing.T) (*acmetest.Pebble, Records) {
			t.Helper()
			r, addr := startResponder(t)
			return acmetest.Start(t, acmetest.Config{HTTPPort: 1, TLSPort: 1, DNS: addr}), r
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, records := start(t)
			f := newFront(t)
			s := f.open(p, func(c *Config) { c.Records = records })
			if _, err := s.Wildcard(); err == nil {
				t.Error("a wildcard before the order")
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = s.Run(ctx) }) // nil when ctx ends
			defer running.Wait()
			defer cancel()
			for _, host := range []string{"blog." + domain, domain} {
				gatewaytest.Eventually(t, func() error {
					_, err := f.handshake(p, host)
					return err
				})
			}
			leaf, err := s.Wildcard()
			if err != nil || leaf.DNSNames[0] != "*."+domain {
				t.Errorf("%v: %v", leaf, err)
			}
		})
	}
}

// startKnot runs a name server for the domain, and returns how to update it.
func startKnot(t *testing.T) *RFC2136 {
	t.Helper()
	if _, err := exec.LookPath("knotd"); err != nil {
		t.Fatalf("%v: apt-get install knot", err)
	}
	const secret = "c2VjcmV0IG9mIHRoZSB0ZXN0LCB0aGlydHkgYnl0ZXM="
	l := listen(t)
	_ = l.Close() // knotd takes the port
	dir := t.TempDir()
	zone := fmt.Sprintf("$ORIGIN %s.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 3600 60\n@ NS ns\nns A 127.0.0.1\n", domain)
	config := fmt.Sprintf(`server:
    rundir: %[1]s
    listen: 127.0.0.1@%[2]d
    automatic-acl: off
database:
    storage: %[1]s
key:
  - id: lodge
    algorithm: hmac-sha256
    secret: %[3]s
acl:
  - id: lodge
    key: lodge
    action: update
zone:
  - domain: %[4]s
    file: %[1]s/zone
    acl: lodge
`, dir, port(l), secret, domain)
	gatewaytest.Must(t, errors.Join(os.WriteFile(filepath.Join(dir, "zone"), []byte(zone), 0o600),
		os.WriteFile(filepath.Join(dir, "knot.conf"), []byte(config), 0o600)))
	cmd := exec.Command("knotd", "-c", filepath.Join(dir, "knot.conf")) //nolint:gosec,noctx // it is killed below
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	gatewaytest.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
	})
	update := &RFC2136{Server: l.Addr().String(), Key: "lodge", Algorithm: "hmac-sha256", Secret: secret}
	gatewaytest.Eventually(t, func() error {
		_, err := update.zone(t.Context(), "_acme-challenge."+domain+".")
		return err
	})
	return update
}

func lookTXT(t *testing.T, network, server, name string) *dns.Msg {
	t.Helper()
	client := dns.Client{Net: network, Timeout: 10 * time.Second}
	reply, _, err := client.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT), server)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestUpdateKeepsOtherRecordsAndNeedsTheKey(t *testing.T) {
	t.Parallel()
	u := startKnot(t)
	const name = "_acme-challenge." + domain
	gatewaytest.Must(t, errors.Join(u.Present(t.Context(), name, "one"), u.Present(t.Context(), name, "two")))
	if reply := lookTXT(t, "tcp", u.Server, name); len(reply.Answer) != 2 {
		t.Errorf("two records: %v", reply)
	}
	gatewaytest.Must(t, errors.Join(u.Remove(t.Context(), name, "one"), u.Remove(t.Context(), name, "none")))
	if reply := lookTXT(t, "tcp", u.Server, name); len(reply.Answer) != 1 || reply.Answer[0].(*dns.TXT).Txt[0] != "two" {
		t.Errorf("after one was removed: %v", reply)
	}
	wrong := *u
	wrong.Secret = "d3Jvbmc="
	if err := wrong.Present(t.Context(), name, "three"); err == nil {
		t.Error("a wrong key was accepted")
	}
	if err := u.Present(t.Context(), "_acme-challenge.example.org", "x"); err == nil {
		t.Error("a name outside the server's zones was updated")
	}
}

func writeHook(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hook")
	gatewaytest.Must(t, os.WriteFile(file, []byte("#!/bin/bash\n"+script), 0o700)) //nolint:gosec // it is a program
	return file
}

func TestHookThatFailsOrHangs(t *testing.T) {
	t.Parallel()
	failing := &Hook{Program: writeHook(t, "head -c 100000 /dev/zero | tr '\\0' x; echo no such zone >&2; exit 3")}
	err := failing.Present(t.Context(), "_acme-challenge."+domain, "v")
	if err == nil || !strings.Contains(err.Error(), "no such zone") || len(err.Error()) > 2*maxHookOutput {
		t.Errorf("a failing hook: %.300v", err)
	}
	pid := filepath.Join(t.TempDir(), "pid")
	hanging := &Hook{Limit: 300 * time.Millisecond, Program: writeHook(t, "sleep 1000 & echo $! > "+pid+"; wait")}
	if err := hanging.Present(t.Context(), "_acme-challenge."+domain, "v"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hanging hook: %v", err)
	}
	gatewaytest.WaitFor(t, "the hook's child ends", func() bool {
		content, err := os.ReadFile(pid)
		if err != nil {
			return false
		}
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(content)) + "/stat")
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}
