package dns

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/store"
)

// host is a Server with two VMs on loopback, and a resolver behind it that is a real DNS server and
// records its queries.
type host struct {
	*Server
	a, b     gateway.VM
	udp, tcp map[gateway.ID]string
	resolver *resolver
}

func newHost(tb testing.TB) *host {
	tb.Helper()
	dir := tb.TempDir()
	db, err := store.Open(tb.Context(), filepath.Join(dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() }) // the directory goes with it
	directory, err := gateway.OpenDirectory(tb.Context(), db)
	if err != nil {
		tb.Fatal(err)
	}
	h := &host{udp: map[gateway.ID]string{}, tcp: map[gateway.ID]string{}, resolver: newResolver(tb)}
	conf := filepath.Join(dir, "resolv.conf")
	write(tb, conf, "nameserver 169.254.169.254\nnameserver 127.0.0.1\n")
	h.Server = New(Config{Directory: directory, Domain: "Lodge.localhost", ResolvConf: conf, Logger: slog.New(slog.DiscardHandler)})
	h.upstream.port = h.resolver.port
	for _, m := range []*gateway.VM{&h.a, &h.b} {
		name := map[*gateway.VM]string{&h.a: "alpha", &h.b: "beta"}[m]
		if *m, err = directory.Create(tb.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running}); err != nil {
			tb.Fatal(err)
		}
	}
	return h
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// serve listens for both VMs.
func (h *host) serve(t *testing.T) {
	t.Helper()
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	for _, m := range []gateway.VM{h.a, h.b} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		t.Cleanup(func() { _ = c.Close() })
		h.tcp[m.ID], h.udp[m.ID] = l.Addr().String(), c.LocalAddr().String()
		served.Go(func() { h.ServeUDP(m.Identity, c) })
		served.Go(func() {
			if err := h.ServeTCP(gatewaytest.Listener(l, m.Identity)); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
}

// ask sends a question as m, over the network if that is "udp" or "tcp".
func (h *host) ask(tb testing.TB, m gateway.VM, network string, query *wire.Msg) *wire.Msg {
	tb.Helper()
	if network == "" {
		return h.answer(tb.Context(), m.Identity, "udp", query)
	}
	address := h.udp[m.ID]
	if network == "tcp" {
		address = h.tcp[m.ID]
	}
	client := &wire.Client{Net: network, Timeout: 10 * time.Second}
	reply, _, err := client.ExchangeContext(tb.Context(), query, address)
	if err != nil {
		tb.Fatalf("%s: %v", query.Question[0].Name, err)
	}
	return reply
}

func question(name string, kind uint16) *wire.Msg { return new(wire.Msg).SetQuestion(name, kind) }

// resolver answers every A question with 192.0.2.1. Exceptions: many addresses for big., another
// question's answer for liar., no reply for slow., and SERVFAIL for broken.
type resolver struct {
	port  string
	asked chan string
	slow  atomic.Int32
	end   chan struct{}
}

func newResolver(tb testing.TB) *resolver {
	tb.Helper()
	c, l := sharedPort(tb)
	r := &resolver{asked: make(chan string, 10_000), end: make(chan struct{})}
	_, r.port, _ = net.SplitHostPort(c.LocalAddr().String())
	for _, server := range []*wire.Server{{PacketConn: c, Handler: r}, {Listener: l, Handler: r}} {
		go server.ActivateAndServe()
		tb.Cleanup(func() { _ = server.Shutdown() })
	}
	tb.Cleanup(func() { close(r.end) })
	return r
}

// sharedPort listens over UDP and TCP on one port. A port that is free for one may be taken for the
// other, so it tries several.
func sharedPort(tb testing.TB) (net.PacketConn, net.Listener) {
	tb.Helper()
	var config net.ListenConfig
	for range 100 {
		c, err := config.ListenPacket(tb.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		if l, err := config.Listen(tb.Context(), "tcp", c.LocalAddr().String()); err == nil {
			return c, l
		}
		_ = c.Close() // the next try has another port
	}
	tb.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// ServeDNS implements dns.Handler.
func (r *resolver) ServeDNS(w wire.ResponseWriter, query *wire.Msg) {
	name := query.Question[0].Name
	r.asked <- name
	reply := new(wire.Msg).SetReply(query)
	reply.SetEdns0(4096, false)
	count := 1
	switch name {
	case "big.":
		count = 200
	case "liar.":
		reply.Question[0].Name = "truth."
	case "slow.":
		r.slow.Add(1)
		<-r.end
		return
	case "broken.":
		reply.Rcode, count = wire.RcodeServerFailure, 0
	}
	for range count {
		rr, _ := wire.NewRR(name + " 60 IN A 192.0.2.1") // a constant record parses
		reply.Answer = append(reply.Answer, rr)
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		reply.Truncate(maxUDP)
	}
	_ = w.WriteMsg(reply) // the test sees what is missing
}

func (r *resolver) wasAsked() string {
	select {
	case name := <-r.asked:
		return name
	default:
		return ""
	}
}

func TestOwnNames(t *testing.T) {
	h := newHost(t)
	h.serve(t)
	const gate, none, no = "169.254.169.254", "", "NXDOMAIN"
	tests := []struct {
		name string
		kind uint16
		want string // an address or a name, NODATA or NXDOMAIN
	}{
		{"alpha.lodge.localhost.", wire.TypeA, gate},
		{"beta.lodge.localhost.", wire.TypeA, gate},
		{"ALPHA.Lodge.LOCALHOST.", wire.TypeA, gate},
		{"8080-alpha.lodge.localhost.", wire.TypeA, gate},
		{"www.alpha.lodge.localhost.", wire.TypeA, gate},
		{"a.b.alpha.lodge.localhost.", wire.TypeA, gate},
		{"www.8080-alpha.lodge.localhost.", wire.TypeA, no},
		{"65536-alpha.lodge.localhost.", wire.TypeA, no},
		{"lodge.localhost.", wire.TypeA, gate},
		{"alpha.lodge.localhost.", wire.TypeAAAA, none},
		{"alpha.lodge.localhost.", wire.TypeMX, none},
		{"alpha.lodge.localhost.", wire.TypeHTTPS, none},
		{"gamma.lodge.localhost.", wire.TypeA, no},
		{"gamma.lodge.localhost.", wire.TypeAAAA, no},
		{"www.gamma.lodge.localhost.", wire.TypeA, no},
		{`al\.pha.lodge.localhost.`, wire.TypeA, no},
		{"s3.lodge.internal.", wire.TypeA, gate},
		{"bucket.s3.lodge.internal.", wire.TypeA, gate},
		{"my.bucket.s3.lodge.internal.", wire.TypeA, gate},
		{"metadata.lodge.internal.", wire.TypeA, gate},
		{"gateway.lodge.internal.", wire.TypeA, gate},
		{"x.gateway.lodge.internal.", wire.TypeA, no},
		{"lodge.internal.", wire.TypeA, none},
		{"other.lodge.internal.", wire.TypeA, no},
		{"alpha.lodge.internal.", wire.TypeA, gate},
		{"Beta.Lodge.INTERNAL.", wire.TypeA, gate},
		{"8080-beta.lodge.internal.", wire.TypeA, gate},
		{"www.alpha.lodge.internal.", wire.TypeA, gate},
		{"alpha.lodge.internal.", wire.TypeAAAA, none},
		{"www.8080-alpha.lodge.internal.", wire.TypeA, no},
		{"8080-s3.lodge.internal.", wire.TypeA, no},
		{"8080-metadata.lodge.internal.", wire.TypeA, no},
		{"gamma.lodge.internal.", wire.TypeA, no},
		{"254.169.254.169.in-addr.arpa.", wire.TypePTR, "gateway.lodge.internal."},
		{"1.254.169.254.169.in-addr.arpa.", wire.TypePTR, no},
	}
	for _, test := range tests {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(fmt.Sprint(test.name, wire.TypeToString[test.kind], network), func(t *testing.T) {
				reply := h.ask(t, h.a, network, question(test.name, test.kind))
				if got := summary(reply); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				if _, isSOA := first(reply.Ns).(*wire.SOA); len(reply.Answer) == 0 && !isSOA {
					t.Error("an empty answer without a SOA")
				}
				if asked := h.resolver.wasAsked(); asked != "" {
					t.Errorf("the resolver was asked for %s", asked)
				}
			})
		}
	}
}

func first(all []wire.RR) wire.RR {
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

func summary(reply *wire.Msg) string {
	if reply.Rcode != wire.RcodeSuccess {
		return wire.RcodeToString[reply.Rcode]
	}
	switch rr := first(reply.Answer).(type) {
	case *wire.A:
		return rr.A.String()
	case *wire.PTR:
		return rr.Ptr
	default:
		return ""
	}
}

func TestRemovedVMHasNoName(t *testing.T) {
	h := newHost(t)
	_, err := h.Directory.Update(t.Context(), h.b.ID, func(m *gateway.VM) error {
		m.Desired = gateway.Removed
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(h.ask(t, h.a, "", question("beta.lodge.localhost.", wire.TypeA))); got != "NXDOMAIN" {
		t.Errorf("got %s", got)
	}
}

func TestWhatIsRefused(t *testing.T) {
	h := newHost(t)
	chaos := question("version.bind.", wire.TypeTXT)
	chaos.Question[0].Qclass = wire.ClassCHAOS
	notify := question("example.org.", wire.TypeSOA)
	notify.Opcode = wire.OpcodeNotify
	two := question("example.org.", wire.TypeA)
	two.Question = append(two.Question, two.Question[0])
	badVersion := question("example.org.", wire.TypeA).SetEdns0(1232, false)
	badVersion.IsEdns0().SetVersion(1)
	tests := map[string]struct {
		query *wire.Msg
		want  int
	}{
		"ANY":             {question("example.org.", wire.TypeANY), wire.RcodeRefused},
		"ANY in own zone": {question("alpha.lodge.localhost.", wire.TypeANY), wire.RcodeRefused},
		"AXFR":            {question("lodge.localhost.", wire.TypeAXFR), wire.RcodeRefused},
		"IXFR":            {question("lodge.localhost.", wire.TypeIXFR), wire.RcodeRefused},
		"chaos":           {chaos, wire.RcodeRefused},
		"notify":          {notify, wire.RcodeNotImplemented},
		"two":             {two, wire.RcodeFormatError},
		"none":            {new(wire.Msg), wire.RcodeFormatError},
		"EDNS 1":          {badVersion, wire.RcodeBadVers},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reply := h.ask(t, h.a, "", test.query)
			if reply.Rcode != test.want {
				t.Errorf("got %s", wire.RcodeToString[reply.Rcode])
			}
			if _, err := reply.Pack(); err != nil {
				t.Error(err)
			}
			if asked := h.resolver.wasAsked(); asked != "" {
				t.Errorf("the resolver was asked for %s", asked)
			}
		})
	}
	if h.ask(t, gateway.VM{}, "", question("example.org.", wire.TypeA)) != nil {
		t.Error("a caller that did not come in on a tap got an answer")
	}
	if h.ask(t, h.a, "", new(wire.Msg).SetReply(question("example.org.", wire.TypeA))) != nil {
		t.Error("an answer got an answer")
	}
}

func TestForwarding(t *testing.T) {
	h := newHost(t)
	h.serve(t)
	for _, network := range []string{"udp", "tcp"} {
		reply := h.ask(t, h.b, network, question("Example.org.", wire.TypeA))
		if summary(reply) != "192.0.2.1" || reply.Authoritative || len(reply.Extra) > 0 {
			t.Errorf("%s: %v", network, reply)
		}
		if asked := h.resolver.wasAsked(); asked != "Example.org." {
			t.Errorf("%s: asked for %s", network, asked)
		}
	}
}

// An answer too large for UDP is marked as truncated, and complete over TCP (RFC 1035 §4.2.1, RFC
// 6891 §6.2.3).
func TestLargeAnswers(t *testing.T) {
	h := newHost(t)
	h.serve(t)
	if reply := h.ask(t, h.a, "udp", question("big.", wire.TypeA)); !reply.Truncated || sent(reply) > 512 {
		t.Errorf("plain UDP: %d bytes, truncated %v", sent(reply), reply.Truncated)
	}
	if reply := h.ask(t, h.a, "udp", question("big.", wire.TypeA).SetEdns0(4096, false)); !reply.Truncated || sent(reply) > maxUDP || reply.IsEdns0() == nil {
		t.Errorf("EDNS: %d bytes, truncated %v", sent(reply), reply.Truncated)
	}
	if reply := h.ask(t, h.a, "tcp", question("big.", wire.TypeA)); reply.Truncated || len(reply.Answer) != 200 {
		t.Errorf("TCP: %d records, truncated %v", len(reply.Answer), reply.Truncated)
	}
}

// sent returns the length of a message in its packet.
func sent(m *wire.Msg) int {
	m.Compress = true
	return m.Len()
}

func TestResolversThatFail(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"liar.", "broken."} {
		if got := summary(h.ask(t, h.a, "", question(name, wire.TypeA))); got != "SERVFAIL" {
			t.Errorf("%s: %s", name, got)
		}
	}
	write(t, h.ResolvConf, "# none\n")
	if got := summary(h.ask(t, h.a, "", question("example.org.", wire.TypeA))); got != "SERVFAIL" {
		t.Errorf("no resolvers: %s", got)
	}
	write(t, h.ResolvConf, "nameserver 127.0.0.99\nnameserver 127.0.0.1\n")
	if got := summary(h.ask(t, h.a, "", question("example.org.", wire.TypeA))); got != "192.0.2.1" {
		t.Errorf("the second of two: %s", got)
	}
	if err := os.Remove(h.ResolvConf); err != nil {
		t.Fatal(err)
	}
	if got := summary(h.ask(t, h.a, "", question("example.org.", wire.TypeA))); got != "192.0.2.1" {
		t.Errorf("the last ones known: %s", got)
	}
}
