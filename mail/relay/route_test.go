package relay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
	"lodge/mail/verdict"
)

// The servers of a domain are those of RFC 5321 §5.1, none of which may be inside.
func TestRoute(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t,
		"order.example. MX 20 b.example.", "order.example. MX 10 a.example.", "a.example. A 11.0.0.1", "b.example. A 11.0.0.2", "b.example. AAAA 2a00::2",
		"implicit.example. A 11.0.0.3", "null.example. MX 0 .", "bare.example. TXT x", "lost.example. MX 10 none.example.",
		"backup.example. MX 10 a.example.", "backup.example. MX 20 "+us+".", "backup.example. MX 30 b.example.", "self.example. MX 5 "+us+".", us+". A 11.0.0.9",
		"inside.example. MX 10 in.example.", "in.example. A 10.0.0.1", "in.example. A 127.0.0.1", "mixed.example. A 192.168.1.1", "mixed.example. A 11.0.0.4",
		"vm.example. A 11.1.0.5", "xn--bcher-kva.example. A 11.0.0.6", "loop.example. CNAME loop.example.", "alias.example. CNAME implicit.example.")
	q := &Queue{config: Config{Domain: us, Resolver: verdict.NewResolver("", zone.Addr), Refuse: []netip.Prefix{netip.MustParsePrefix("11.1.0.0/16")}}}
	for domain, want := range map[string]string{
		"order.example": "11.0.0.1 then 11.0.0.2 2a00::2", "implicit.example": "11.0.0.3", "null.example": "5.1.10", "none.example": "5.1.2", "bare.example": "5.1.2",
		"lost.example": "5.4.4", "backup.example": "11.0.0.1", "self.example": "5.4.6", "inside.example": "5.4.4", "mixed.example": "11.0.0.4", "vm.example": "5.4.4",
		"bücher.example": "11.0.0.6", "x": "5.1.2", "a..example": "5.1.2", "127.0.0.1": "5.1.2", "loop.example": "5.1.2", "alias.example.": "11.0.0.3",
	} {
		servers, f := q.route(t.Context(), domain)
		if got := describe(servers, f); got != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
	zone.Fail(dns.RcodeServerFailure)
	if _, f := q.route(t.Context(), "other.example"); f == nil || f.permanent {
		t.Errorf("DNS fails: %v", f)
	}
}

func describe(servers []server, f *failure) string {
	if f != nil {
		return f.status
	}
	var hosts []string
	host := ""
	for _, s := range servers {
		if host != s.host {
			hosts, host = append(hosts, ""), s.host
		}
		hosts[len(hosts)-1] += " " + s.addr.String()
	}
	for i, h := range hosts {
		parts := strings.Fields(h)
		slices.Sort(parts)
		hosts[i] = strings.Join(parts, " ")
	}
	return strings.Join(hosts, " then ")
}

// Servers that are equal share the mail.
func TestEqualServers(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, "far.example. MX 10 a.example.", "far.example. MX 10 b.example.", "a.example. A 11.0.0.1", "b.example. A 11.0.0.2")
	q := &Queue{config: Config{Domain: us, Resolver: verdict.NewResolver("", zone.Addr)}}
	first := map[string]int{}
	for range 64 {
		servers, _ := q.route(t.Context(), "far.example")
		first[servers[0].host]++
	}
	if len(first) != 2 {
		t.Errorf("%v", first)
	}
}

// No address that is not on the internet is one that mail goes to.
func TestForbidden(t *testing.T) {
	t.Parallel()
	q := &Queue{config: Config{Refuse: []netip.Prefix{netip.MustParsePrefix("11.1.0.0/16")}}}
	for _, text := range []string{
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1",
		"255.255.255.255", "240.0.0.1", "11.1.2.3", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:db8::1", "::ffff:127.0.0.1", "::127.0.0.1",
	} {
		if q.forbidden(netip.MustParseAddr(text).Unmap()) == "" {
			t.Errorf("%s is allowed", text)
		}
	}
	for _, text := range []string{"11.0.0.1", "8.8.8.8", "2a00::1", "172.32.0.1"} {
		if why := q.forbidden(netip.MustParseAddr(text)); why != "" {
			t.Errorf("%s: %s", text, why)
		}
	}
}

// A stranger's record that points to this host gets no connection, and the sender a report.
func TestNothingGoesInside(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1", "")
	asked := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			asked <- c
		}
	}()
	r := start(t, portOf(l), func(c *Config) { c.inside = false }, "evil.example. MX 0 trap.evil.example.", "trap.evil.example. A 127.0.0.1")
	r.send(t, "one", "x@evil.example")
	if report := r.reports(t, 1)[0]; !strings.Contains(report, "Status: 5.4.4\r\n") || !strings.Contains(report, "not on the internet") {
		t.Errorf("%s", report)
	}
	r.waitEmpty(t)
	if len(asked) > 0 {
		t.Error("it was connected to")
	}
}

// A server that does not answer is passed over for the next, by preference.
func TestNextServer(t *testing.T) {
	t.Parallel()
	second := new(sink).serve(t, "127.0.0.2", "", nil)
	raw(t, "127.0.0.3", second.port, func(c net.Conn) { fmt.Fprint(c, "554 5.7.1 not here\r\n") })
	r := start(t, second.port, nil, "far.example. MX 10 a.far.example.", "far.example. MX 20 b.far.example.", "far.example. MX 30 c.far.example.",
		"a.far.example. A 127.0.0.1", "b.far.example. A 127.0.0.3", "c.far.example. A 127.0.0.2")
	r.send(t, "one", "x@far.example")
	second.wait(t, 1)
	r.waitEmpty(t)
	if r.log.Count("message delayed") > 0 {
		t.Error("it was delayed")
	}
}

// A VM whose mail hangs, at one server and at many, has a part of the connections, and only its own mail
// waits.
func TestHangingServers(t *testing.T) {
	t.Parallel()
	hang := raw(t, "127.0.0.1", "", func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	near := new(sink).serve(t, "127.0.0.2", hang, nil)
	r := start(t, hang, func(c *Config) { c.Times.Command, c.Times.Grace = time.Hour, 0 }, "*.hang.example. A 127.0.0.1", "near.example. A 127.0.0.2")
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("x@d%d.hang.example", i))
	}
	r.send(t, "hangs", many...)
	for i := range 100 {
		r.send(t, fmt.Sprint("hangs ", i), "x@one.hang.example")
	}
	limit := DefaultLimits().ConnectionsOfVM
	gatewaytest.WaitFor(t, "all connections of the VM", func() bool { each, _ := r.connections.Held(r.blog.ID); return each == limit })
	r.blog.ID[15]++
	r.send(t, "second", "x@near.example")
	near.wait(t, 1)
	if _, all := r.connections.Held(r.blog.ID); all > limit+1 {
		t.Errorf("%d connections", all)
	}
}

// VMs that send to the same server have turns there: one message does not wait for a hundred.
func TestTurns(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	near := (&sink{data: func(string) error { <-hold; return nil }}).serve(t, "127.0.0.2", "", nil)
	r := start(t, near.port, func(c *Config) {
		l := &c.Limits
		l.ConnectionsOfDest, l.PerConnection, l.RateOfVM, l.BurstOfVM, l.RateOfDest = 1, 5, 1e6, 1e6, 1e6
	}, "near.example. A 127.0.0.2")
	for i := range 100 {
		r.send(t, fmt.Sprint("first ", i), "x@near.example")
	}
	r.blog.ID[15]++
	r.send(t, "second", "x@near.example")
	close(hold)
	all := near.wait(t, 101)
	if at := slices.IndexFunc(all, func(m received) bool { return strings.Contains(m.text, "body of second") }); at > 10 {
		t.Errorf("the other VM's message was number %d", at)
	}
}

// A VM that sends more than its rate waits alone.
func TestRates(t *testing.T) {
	t.Parallel()
	near := new(sink).serve(t, "127.0.0.2", "", nil)
	r := start(t, near.port, func(c *Config) { c.Limits.RateOfVM, c.Limits.BurstOfVM = 1e-6, 3 }, "near.example. A 127.0.0.2")
	for i := range 5 {
		r.send(t, fmt.Sprint("first ", i), "x@near.example")
	}
	near.wait(t, 3)
	r.blog.ID[15]++
	r.send(t, "second", "x@near.example")
	near.wait(t, 4)
	gatewaytest.WaitFor(t, "two that wait", func() bool { return r.Waiting() == 2 })
}
