package acme

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"lodge/gateway/gatewaytest"
)

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
			reply := lookTXT(t, network, addr, name)
			if reply.Rcode != want || len(reply.Answer) > 0 {
				t.Errorf("%s: %s: %v", network, name, reply)
			}
			if want == dns.RcodeNameError {
				wantSOA(t, reply, zone, 0)
			}
		}
	}
	gatewaytest.Must(t, errors.Join(r.Remove(t.Context(), zone, "one"), r.Remove(t.Context(), zone, "two")))
	wantSOA(t, lookTXT(t, "udp", addr, zone), zone, 0)
}

// wantSOA checks that a negative answer can be cached for ttl (RFC 2308 §3).
func wantSOA(t *testing.T, reply *dns.Msg, zone string, ttl uint32) {
	t.Helper()
	if len(reply.Answer) > 0 || len(reply.Ns) != 1 || !reply.Authoritative {
		t.Errorf("no negative answer: %v", reply)
		return
	}
	soa, ok := reply.Ns[0].(*dns.SOA)
	if !ok || soa.Hdr.Name != dns.Fqdn(zone) || soa.Hdr.Ttl != ttl || soa.Minttl != ttl {
		t.Errorf("%v, want the SOA of %s for %d s", reply.Ns[0], zone, ttl)
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
		reply := lookTXT(t, "udp", addr, name)
		if reply.Rcode != want || len(reply.Answer) > 0 {
			t.Errorf("%s: %v", name, reply)
		}
		if want == dns.RcodeNameError {
			wantSOA(t, reply, zone, 600)
		}
	}
	wantSOA(t, lookTXT(t, "udp", addr, zone), zone, 600)
}

// TestResponderRefersFloodsToTCP: addresses over UDP can be forged, so answers above the rate of a net
// are no larger than the questions, whether the name exists or not. Other nets get theirs.
func TestResponderRefersFloodsToTCP(t *testing.T) {
	t.Parallel()
	r, addr := startResponder(t)
	const zone = "_acme-challenge." + domain
	gatewaytest.Must(t, r.Present(t.Context(), "", strings.Repeat("x", 43)))
	for from, name := range map[string]string{"127.0.1.1": zone, "127.0.2.1": "x." + zone} {
		exchange := queryFrom(t, from, addr, name)
		size, truncated := exchange()
		if truncated {
			t.Errorf("%s: the first answer is truncated", from)
		}
		full := 1
		for ; !truncated && full <= udpPerSecond; full++ {
			size, truncated = exchange()
		}
		if query := len(zone) + 18; !truncated || size > query+2 {
			t.Errorf("%s: %d full answers, then one of %d bytes for %d", from, full, size, query)
		}
	}
	if reply := lookTXT(t, "tcp", addr, zone); len(reply.Answer) != 1 {
		t.Errorf("over TCP: %v", reply)
	}
}

// queryFrom returns a function that asks for TXT over UDP from an address, and returns the size of the
// answer and whether it is truncated.
func queryFrom(t *testing.T, from, addr, name string) func() (size int, truncated bool) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	c, err := dialer.DialContext(t.Context(), "udp", addr)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // the test is over
	query, err := new(dns.Msg).SetQuestion(name+".", dns.TypeTXT).Pack()
	gatewaytest.Must(t, err)
	buf := make([]byte, maxResponderUDP)
	return func() (int, bool) {
		_, err := c.Write(query)
		gatewaytest.Must(t, err)
		n, err := c.Read(buf)
		gatewaytest.Must(t, err)
		return n, buf[2]&2 != 0 // the truncation bit
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
