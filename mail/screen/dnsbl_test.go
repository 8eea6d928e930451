package screen

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
	"lodge/mail/verdict"
)

func listing(tb testing.TB, server string, zones ...string) *Screen {
	tb.Helper()
	s, err := New(Config{Blocklists: zones, Resolver: verdict.NewResolver("", server)}, tb.TempDir(), slog.New(slog.DiscardHandler))
	gatewaytest.Must(tb, err)
	return s
}

// A client is refused by what a list has about it, and by nothing that a list which works would not
// have.
func TestListed(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t,
		`1.2.0.192.bl.example. A 127.0.0.2`, `1.2.0.192.bl.example. TXT "see https://bl.example/192.0.2.1"`,
		`2.2.0.192.bl.example. A 127.0.0.4`,
		`3.2.0.192.bl.example. A 127.255.255.254`, `4.2.0.192.bl.example. A 198.51.100.7`,
		`1.0.0.10.bl.example. A 127.0.0.2`,
		`1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example. A 127.0.0.2`,
		`1.2.0.192.all.example. A 127.0.0.2`, `1.0.0.127.all.example. A 127.0.0.2`,
		`5.2.0.192.second.example. A 127.0.0.2`, `5.2.0.192.second.example. TXT "a`+"\\009\\200"+strings.Repeat("x", 230)+`"`,
	)
	s := listing(t, zone.Addr, "all.example", "bl.example", "second.example")
	for addr, want := range map[string]Listing{
		"192.0.2.1":        {"bl.example", "see https://bl.example/192.0.2.1"},
		"::ffff:192.0.2.2": {"bl.example", ""},
		"2001:db8::1":      {"bl.example", ""},
		"192.0.2.5":        {"second.example", `a\009\200` + strings.Repeat("x", 191)}, // as in a zone file
		"192.0.2.3":        {},                                                         // the list answers that it does not answer
		"192.0.2.4":        {},                                                         // a domain that was sold
		"192.0.2.6":        {},
		"10.0.0.1":         {},
		"127.0.0.1":        {},
	} {
		got, ok := s.Listed(t.Context(), netip.MustParseAddr(addr))
		if got != want || ok != (want != Listing{}) {
			t.Errorf("%s: %+v, %v, want %+v", addr, got, ok, want)
		}
	}
	if _, ok := s.Listed(t.Context(), netip.Addr{}); ok {
		t.Error("the zero address is listed")
	}
}

// unsure is a Resolver that fails at one name.
type unsure struct {
	Resolver
	name string
	err  error
}

func (u unsure) Ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	if name == u.name {
		return nil, u.err
	}
	return u.Resolver.Ask(ctx, name, kind)
}

// A list counts only if it is known not to have 127.0.0.1: without an answer about that it may have
// everybody.
func TestListedWithoutProof(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, `1.2.0.192.bl.example. A 127.0.0.2`)
	const control = "1.0.0.127.bl.example"
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"not found": {&net.DNSError{Name: control, IsNotFound: true}, true},
		"temporary": {&net.DNSError{Name: control, IsTemporary: true}, false},
		"too late":  {context.DeadlineExceeded, false},
	} {
		s := listing(t, zone.Addr, "bl.example")
		s.config.Resolver = unsure{s.config.Resolver, control, test.err}
		if _, ok := s.Listed(t.Context(), netip.MustParseAddr("192.0.2.1")); ok != test.want {
			t.Errorf("%s: listed is %v", name, ok)
		}
	}
}

// DNS that fails, or does not answer, lists nobody, within a bounded time.
func TestListedByBrokenDNS(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, `1.2.0.192.bl.example. A 127.0.0.2`)
	zone.Fail(dns.RcodeServerFailure)
	silent, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0") // nobody reads
	gatewaytest.Must(t, err)
	defer silent.Close()
	for name, server := range map[string]string{"fails": zone.Addr, "is silent": silent.LocalAddr().String(), "is not there": "127.0.0.1:1"} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if got, ok := listing(t, server, "bl.example").Listed(ctx, netip.MustParseAddr("192.0.2.1")); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// broken is a Resolver that counts the questions, and answers none.
type broken struct{ asked atomic.Int32 }

func (b *broken) Ask(context.Context, string, uint16) ([]dns.RR, error) {
	b.asked.Add(1)
	return nil, &net.DNSError{IsTimeout: true}
}

// A client that names many recipients waits for a broken list once, unless the client of the first
// question had left.
func TestListedAgain(t *testing.T) {
	t.Parallel()
	b, addr := new(broken), netip.MustParseAddr("192.0.2.1")
	s := listing(t, "127.0.0.1:1", "bl.example")
	s.config.Resolver = b
	left, leave := context.WithCancel(t.Context())
	leave()
	for _, step := range []struct {
		ctx   context.Context
		addr  string
		asked int32
	}{
		{left, "192.0.2.1", 1},
		{t.Context(), "192.0.2.1", 2},
		{t.Context(), "192.0.2.1", 2},
		{t.Context(), "::ffff:192.0.2.1", 2},
		{t.Context(), "192.0.2.2", 3},
	} {
		if _, ok := s.Listed(step.ctx, netip.MustParseAddr(step.addr)); ok || b.asked.Load() != step.asked {
			t.Errorf("%s: listed is %v after %d questions, want %d", step.addr, ok, b.asked.Load(), step.asked)
		}
	}
	now := time.Now()
	for range maxResults { // of other clients
		addr = addr.Next()
		s.results.put(addr, result{listed: true}, now)
	}
	if _, ok := s.results.get(addr, now.Add(resultLife)); ok || len(s.results.by) > maxResults {
		t.Errorf("a result is used for too long, or there are %d", len(s.results.by))
	}
	if r, ok := s.results.get(addr, now.Add(resultLife-time.Second)); !ok || !r.listed {
		t.Error("the last result is not there")
	}
}
