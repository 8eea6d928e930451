package verdict

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
)

func remote(text string) netip.Addr { return netip.MustParseAddr(text) }

// look asks for texts as the libraries do.
func look(tb testing.TB, r *Resolver, name string) ([]string, error) {
	tb.Helper()
	return (&lookup{resolver: r, ctx: tb.Context()}).LookupTXT(tb.Context(), name)
}

// packets runs a server of UDP on loopback that answers each query by f: nil is no answer.
func packets(tb testing.TB, f func(query *dns.Msg) []byte) (addr string) {
	tb.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	gatewaytest.Must(tb, err)
	var serving sync.WaitGroup
	tb.Cleanup(func() { conn.Close(); serving.Wait() })
	serving.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			query := new(dns.Msg)
			if err := query.Unpack(buf[:n]); err != nil {
				tb.Errorf("a query that cannot be read: %v", err)
				continue
			}
			if answer := f(query); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from) // who asked may have left
			}
		}
	})
	return conn.LocalAddr().String()
}

// pack is a reply with an answer, changed.
func pack(query *dns.Msg, change func(*dns.Msg)) []byte {
	reply := new(dns.Msg).SetReply(query)
	reply.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{"forged"}}}
	change(reply)
	wire, err := reply.Pack()
	if err != nil {
		panic(err)
	}
	return wire
}

// Whatever a server answers, all but a proper answer is a temporary error, and the next server is asked.
func TestBadServers(t *testing.T) {
	t.Parallel()
	good := domainstest.Start(t, txt("example.com", "yes"))
	for name, f := range map[string]func(*dns.Msg) []byte{
		"silent": func(*dns.Msg) []byte { return nil },
		"junk": func(*dns.Msg) []byte {
			junk := make([]byte, 100)
			_, _ = rand.Read(junk) // it cannot fail
			return junk
		},
		"short":            func(*dns.Msg) []byte { return []byte{1} },
		"cut":              func(q *dns.Msg) []byte { return pack(q, func(*dns.Msg) {})[:30] },
		"another id":       func(q *dns.Msg) []byte { return pack(q, func(m *dns.Msg) { m.Id++ }) },
		"another question": func(q *dns.Msg) []byte { return pack(q, func(m *dns.Msg) { m.Question[0].Name = "example.net." }) },
		"another type":     func(q *dns.Msg) []byte { return pack(q, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }) },
		"no question":      func(q *dns.Msg) []byte { return pack(q, func(m *dns.Msg) { m.Question = nil }) },
		"refused":          func(q *dns.Msg) []byte { return pack(q, func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }) },
		"failed":           func(q *dns.Msg) []byte { return pack(q, func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }) },
		"cut, no TCP":      func(q *dns.Msg) []byte { return pack(q, func(m *dns.Msg) { m.Truncated = true }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := packets(t, f)
			_, err := look(t, NewResolver("", bad), "example.com")
			if failed, ok := errors.AsType[*net.DNSError](err); !ok || !failed.IsTemporary {
				t.Errorf("alone: %v", err)
			}
			r := waiting(NewResolver("", bad, good.Addr))
			if texts, err := look(t, r, "example.com"); err != nil || !slices.Equal(texts, []string{"yes"}) {
				t.Errorf("before a good one: %q, %v", texts, err)
			}
		})
	}
}

// A silent server costs a message seconds, and no verdict.
func TestSilentDNS(t *testing.T) {
	t.Parallel()
	c := New(NewResolver("", packets(t, func(*dns.Msg) []byte { return nil })))
	v := judge(t, c, sent{remote: honest, from: "b@example.com", text: sign(t, "example.com", plain, nil)})
	if got := fmt.Sprint(v.SPF, " ", signatures(v), " ", v.DMARC, " ", v.Rejected()); got != "temperror temperror example.com temperror false" {
		t.Error(got)
	}
	wellFormed(t, v.Field(us))
}

// A caller that leaves does not wait for the answer.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := NewResolver("", packets(t, func(*dns.Msg) []byte { cancel(); return nil }))
	if _, err := r.Ask(ctx, "example.com", dns.TypeTXT); !strings.Contains(fmt.Sprint(err), context.Canceled.Error()) {
		t.Error(err)
	}
}

// resolving runs a server that has the answers of a zone, but for the questions that f takes.
func resolving(tb testing.TB, zone *domainstest.Server, takes func(name string) bool) (addr string) {
	tb.Helper()
	return packets(tb, func(q *dns.Msg) []byte {
		if takes(q.Question[0].Name) {
			return nil
		}
		reply, err := dns.Exchange(q, zone.Addr)
		if err != nil {
			tb.Error(err)
			return nil
		}
		wire, err := reply.Pack()
		if err != nil {
			tb.Error(err)
		}
		return wire
	})
}

// A domain whose servers do not answer has a limit of its own: mail of others is checked meanwhile.
func TestSlowDomain(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, txt("example.com", "v=spf1 ip4:"+honest+" -all"), txt("_dmarc.example.com", "v=DMARC1; p=reject"))
	c := New(NewResolver("", resolving(t, zone, func(name string) bool { return dns.IsSubDomain("slow.example.", name) })))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiting sync.WaitGroup
	var refused atomic.Int32
	for i := range 4 * maxAtOnce {
		waiting.Go(func() {
			_, err := c.resolver.Ask(ctx, fmt.Sprintf("x%d.slow.example", i), dns.TypeTXT)
			if strings.Contains(fmt.Sprint(err), "too many questions about the domain") {
				refused.Add(1)
			}
			if each, _ := c.resolver.asking.Held("slow.example"); err == nil || each > maxAtOnce {
				t.Errorf("%d questions at once, %v", each, err)
			}
		})
	}
	gatewaytest.WaitFor(t, "as many questions as there may be", func() bool { return refused.Load() > 0 })
	if v := judge(t, c, sent{remote: honest, from: "b@example.com", text: plain}); v.DMARC != Pass {
		t.Errorf("another domain: %+v", v)
	}
	cancel()
	waiting.Wait()
}

// waiting has r wait for answers that come late on a busy machine.
func waiting(r *Resolver) *Resolver {
	r.patience = patience{time.Minute, 50 * time.Second, 5 * time.Second}
	return r
}

// A crowd of messages of one domain asks each question once, and gets all answers.
func TestCrowd(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, txt("example.com", "v=spf1 ip4:"+honest+" -all"), txt("_dmarc.example.com", "v=DMARC1; p=reject"), txt(pkey+"example.com", keyRecord(edKey.Public())))
	var asked atomic.Int32
	c := New(waiting(NewResolver("", resolving(t, zone, func(string) bool { asked.Add(1); return false }))))
	text := sign(t, "example.com", plain, nil)
	var all sync.WaitGroup
	for range 4 * maxAtOnce {
		all.Go(func() {
			if v := judge(t, c, sent{remote: honest, from: "b@example.com", text: text}); v.SPF != Pass || signatures(v) != "pass example.com" || v.DMARC != Pass {
				t.Errorf("%+v", v)
			}
		})
	}
	all.Wait()
	if n := asked.Load(); n > 2*3 { // 3, and again those whose answer came late
		t.Errorf("%d questions were asked", n)
	}
}

// Large answers come by TCP, in one piece, through aliases; and what is no name is not asked for.
func TestAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 200)
	zone := domainstest.Start(t, txt("long.example", long), "alias.example. CNAME long.example.", "a.example. A 192.0.2.1", "b.example. AAAA 2001:db8::1", "1.2.0.192.in-addr.arpa. PTR a.example.")
	r := NewResolver("", zone.Addr)
	for _, name := range []string{"long.example", "ALIAS.example."} {
		if texts, err := look(t, r, name); err != nil || len(texts) != 1 || texts[0] != long {
			t.Errorf("%s: %q, %v", name, texts, err)
		}
	}
	l := &lookup{resolver: r, ctx: t.Context()}
	for name, want := range map[string]int{"a.example": 1, "b.example": 1, "c.example": 0} {
		addrs, err := l.LookupIPAddr(t.Context(), name)
		if len(addrs) != want || isNotFound(err) != (want == 0) {
			t.Errorf("%s: %v, %v", name, addrs, err)
		}
	}
	if names, err := l.LookupAddr(t.Context(), "192.0.2.1"); err != nil || !slices.Equal(names, []string{"a.example."}) {
		t.Errorf("%q, %v", names, err)
	}
	for _, name := range []string{"none.example", "", "a..example", `a\.example`, "a\x00.example", "\u00fc.example", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 200)} {
		if texts, err := look(t, r, name); !isNotFound(err) {
			t.Errorf("%q: %q, %v", name, texts, err)
		}
	}
	zone.Set(t) // what is known is not asked again
	if texts, err := look(t, r, "long.example"); err != nil || len(texts) != 1 {
		t.Errorf("%q, %v", texts, err)
	}
}

func TestServersOfTheHost(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	gatewaytest.Must(t, os.WriteFile(conf, []byte("search x\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"), 0o600))
	if got := NewResolver(conf).list(); !slices.Equal(got, []string{"192.0.2.53:53", "[2001:db8::53]:53"}) {
		t.Errorf("%q", got)
	}
	_, err := look(t, NewResolver(conf+".none"), "example.com")
	if failed, ok := errors.AsType[*net.DNSError](err); !ok || !failed.IsTemporary {
		t.Error(err)
	}
}

// Answers are kept as long as their TTL is, within limits, and never without bound.
func TestMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		record := func(ttl uint32) []dns.RR {
			return []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Ttl: ttl}, Txt: []string{"x"}}}
		}
		m := memory{known: map[question]answer{}}
		for name, tt := range map[string]struct {
			records []dns.RR
			age     time.Duration
		}{
			"minute": {record(60), time.Minute}, "none": {record(0), minAge}, "long": {record(1 << 31), maxAge}, "empty": {nil, minAge},
		} {
			m.put(question{name: name}, tt.records, 100)
			time.Sleep(tt.age - 1) //nolint:forbidigo // of the bubble's clock
			if _, ok := m.get(question{name: name}); !ok {
				t.Errorf("%s: forgotten too soon", name)
			}
			time.Sleep(time.Nanosecond) //nolint:forbidigo // of the bubble's clock
			if _, ok := m.get(question{name: name}); ok {
				t.Errorf("%s: still known", name)
			}
		}
		m.put(question{name: "large"}, record(60), maxKnownBytes+1)
		if _, ok := m.get(question{name: "large"}); ok {
			t.Error("a large answer is known")
		}
		for i := range 3 * maxKnown {
			m.put(question{name: fmt.Sprint(i)}, record(60), 1)
		}
		if _, ok := m.get(question{name: fmt.Sprint(3*maxKnown - 1)}); !ok || len(m.known) > maxKnown {
			t.Errorf("%d are known", len(m.known))
		}
	})
}
