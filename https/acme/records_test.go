package acme

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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

// startResponder serves a Responder over UDP and TCP, at the same port of loopback.
func startResponder(t *testing.T) (*Responder, string) {
	t.Helper()
	r := NewResponder("_acme-challenge."+domain, domain, slog.New(slog.DiscardHandler))
	l := listen(t)
	packets, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	for _, serve := range []func() error{func() error { return r.ServeTCP(l) }, func() error { return r.ServeUDP(packets) }} {
		serving.Go(func() {
			if err := serve(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		_ = packets.Close() // the test is over
		_ = l.Close()       // as above
		serving.Wait()
	})
	return r, l.Addr().String()
}

// fullListener is a listener of a host that is out of descriptors, once.
type fullListener struct {
	net.Listener
	failed bool
}

func (l *fullListener) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// The end of the responder would be that of the daemon.
func TestResponderOutlivesAFailedAccept(t *testing.T) {
	t.Parallel()
	r := NewResponder("_acme-challenge."+domain, domain, slog.New(slog.DiscardHandler))
	l := &fullListener{Listener: listen(t)}
	ended := make(chan error, 1)
	go func() { ended <- r.ServeTCP(l) }()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	gatewaytest.Must(t, err)
	defer c.Close()
	query, err := new(dns.Msg).SetQuestion("_acme-challenge."+domain+".", dns.TypeSOA).Pack()
	gatewaytest.Must(t, err)
	framed := &dns.Conn{Conn: c}
	_, err = framed.Write(query)
	gatewaytest.Must(t, err)
	answered := make(chan error, 1)
	go func() {
		_, err := framed.ReadMsg()
		answered <- err
	}()
	select {
	case err := <-answered:
		gatewaytest.Must(t, errors.Join(err, l.Close(), <-ended))
	case err := <-ended:
		t.Errorf("it ended: %v", err)
	}
}

func TestResponder(t *testing.T) {
	t.Parallel()
	r, addr := startResponder(t)
	const zone = "_acme-challenge." + domain
	gatewaytest.Must(t, errors.Join(r.Present(t.Context(), zone, "one"), r.Present(t.Context(), zone, "two")))
	for _, network := range []string{"udp", "tcp"} {
		if reply := lookTXT(t, network, addr, "_ACME-challenge."+domain); len(reply.Answer) != 2 || !reply.Authoritative || reply.RecursionAvailable {
			t.Errorf("%s: %v", network, reply)
		}
		for name, want := range map[string]int{"example.org": dns.RcodeRefused, domain: dns.RcodeRefused, "x." + zone: dns.RcodeNameError} {
			if reply := lookTXT(t, network, addr, name); reply.Rcode != want || len(reply.Answer) > 0 {
				t.Errorf("%s: %s: %v", network, name, reply)
			}
		}
	}
	gatewaytest.Must(t, errors.Join(r.Remove(t.Context(), zone, "one"), r.Remove(t.Context(), zone, "two")))
	if reply := lookTXT(t, "udp", addr, zone); len(reply.Answer) > 0 || len(reply.Ns) != 1 {
		t.Errorf("without records: %v", reply)
	}
}

// Zones that are published have their TXT records, and nothing else; the proof of the domain stays.
func TestResponderPublishes(t *testing.T) {
	t.Parallel()
	r, addr := startResponder(t)
	const zone = "_domainkey." + domain
	for _, bad := range []string{"x." + domain + ". TXT \"a\"", "x." + zone + ". A 127.0.0.1", "x." + zone + ". TXT \"a"} {
		if err := r.Publish(zone, bad); err == nil {
			t.Errorf("%s: published", bad)
		}
	}
	if reply := lookTXT(t, "udp", addr, "a."+zone); reply.Rcode != dns.RcodeRefused {
		t.Errorf("before: %v", reply)
	}
	long := strings.Repeat("x", 250)
	gatewaytest.Must(t, r.Publish(zone, "gone."+zone+". TXT \"x\""))
	gatewaytest.Must(t, r.Publish(zone, "a."+zone+". 600 TXT \"one\" \"two\"", "b."+zone+". TXT \""+long+"\" \""+long+"\""))
	gatewaytest.Must(t, r.Present(t.Context(), "", "proof"))
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{
			"A._DomainKey." + domain: "[one two] 600", zone: "", "_acme-challenge." + domain: "[proof] 0", "b." + zone: "[" + long + " " + long + "] 3600",
		} {
			var got strings.Builder
			reply := lookTXT(t, network, addr, name)
			for _, rr := range reply.Answer {
				fmt.Fprint(&got, rr.(*dns.TXT).Txt, " ", rr.Header().Ttl)
			}
			if cut := network == "udp" && len(want) > 500; reply.Truncated != cut || !cut && (got.String() != want || !reply.Authoritative || reply.Rcode != dns.RcodeSuccess) {
				t.Errorf("%s: %s: %v", network, name, reply)
			}
		}
	}
	for name, want := range map[string]int{"gone." + zone: dns.RcodeNameError, "x.a." + zone: dns.RcodeNameError, domain: dns.RcodeRefused} {
		if reply := lookTXT(t, "udp", addr, name); reply.Rcode != want || len(reply.Answer) > 0 {
			t.Errorf("%s: %v", name, reply)
		}
	}
}

// TestResponderRefersFloodsToTCP: addresses over UDP can be forged, so answers above the rate are no
// larger than the questions.
func TestResponderRefersFloodsToTCP(t *testing.T) {
	t.Parallel()
	r, addr := startResponder(t)
	gatewaytest.Must(t, r.Present(t.Context(), "", strings.Repeat("x", 43)))
	c, err := new(net.Dialer).DialContext(t.Context(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	query, err := new(dns.Msg).SetQuestion("_acme-challenge."+domain+".", dns.TypeTXT).Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxResponderUDP)
	gatewaytest.WaitFor(t, "an answer of the query's size", func() bool {
		for range 2 * udpPerSecond {
			if _, err := c.Write(query); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if n == len(query) && buf[2]&2 != 0 { // the truncation bit
				return true
			}
		}
		return false
	})
	if reply := lookTXT(t, "tcp", addr, "_acme-challenge."+domain); len(reply.Answer) != 1 {
		t.Errorf("over TCP: %v", reply)
	}
}

// FuzzResponder: whatever arrives, an answer is a DNS message with the question's id, has records of
// the zone's own name alone, and over UDP fits a packet.
func FuzzResponder(f *testing.F) {
	for _, q := range []struct {
		name  string
		qtype uint16
	}{{"_acme-challenge.vm.example.", dns.TypeTXT}, {"_acme-challenge.vm.example.", dns.TypeANY}, {"vm.example.", dns.TypeA}, {".", dns.TypeNS}} {
		packet, err := new(dns.Msg).SetQuestion(q.name, q.qtype).SetEdns0(4096, true).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet, true)
		f.Add(packet, false)
	}
	r := NewResponder("_acme-challenge."+domain, domain, slog.New(slog.DiscardHandler))
	for i := range 100 {
		gatewaytest.Must(f, r.Present(f.Context(), "", strings.Repeat("x", 40)+fmt.Sprint(i)))
	}
	f.Fuzz(func(t *testing.T, packet []byte, udp bool) {
		reply := r.answer(packet, udp, true)
		if reply == nil {
			return
		}
		var in, out dns.Msg
		if err := errors.Join(in.Unpack(packet), out.Unpack(reply)); err != nil || out.Id != in.Id || !out.Response {
			t.Fatalf("%x gets %x: %v", packet, reply, err)
		}
		if udp && len(reply) > maxResponderUDP {
			t.Errorf("%d bytes over UDP", len(reply))
		}
		for _, rr := range append(out.Answer, out.Ns...) {
			if name := dns.CanonicalName(rr.Header().Name); name != "_acme-challenge."+domain+"." {
				t.Errorf("a record of %s", name)
			}
			if in.Question[0].Qclass != dns.ClassINET {
				t.Errorf("a record for class %d", in.Question[0].Qclass)
			}
		}
	})
}
