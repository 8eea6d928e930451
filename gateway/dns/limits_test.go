package dns

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"lodge/gateway"
)

// One VM that has used up its share gets SERVFAIL; its own names, and other VMs, are answered.
func TestOneVMCannotUseUpTheResolver(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	var stuck sync.WaitGroup
	defer stuck.Wait()
	defer cancel()
	for range maxPerVM {
		stuck.Go(func() { h.answer(ctx, h.a.Identity, "udp", question("slow.", wire.TypeA)) })
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for h.resolver.slow.Load() < maxPerVM {
		<-tick.C
	}
	if got := summary(h.ask(t, h.a, "", question("example.org.", wire.TypeA))); got != "SERVFAIL" {
		t.Errorf("one more: %s", got)
	}
	if got := summary(h.ask(t, h.a, "", question("alpha.lodge.localhost.", wire.TypeA))); got != "169.254.169.254" {
		t.Errorf("its own name: %s", got)
	}
	if got := summary(h.ask(t, h.b, "", question("example.org.", wire.TypeA))); got != "192.0.2.1" {
		t.Errorf("another VM: %s", got)
	}
}

func TestConnectionsOfOneVMAreLimited(t *testing.T) {
	h := newHost(t)
	h.serve(t)
	for range maxConns {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.tcp[h.a.ID])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		framed := &wire.Conn{Conn: c}
		if err := framed.WriteMsg(question("alpha.lodge.localhost.", wire.TypeA)); err != nil {
			t.Fatal(err)
		}
		if _, err := framed.ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.tcp[h.a.ID])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("one more read %d bytes", n)
	}
	if got := summary(h.ask(t, h.b, "tcp", question("beta.lodge.localhost.", wire.TypeA))); got != "169.254.169.254" {
		t.Errorf("another VM: %s", got)
	}
}

// The property: no packet makes it panic or breaks the answer's packing. A question about a name in
// an own zone is never forwarded, and only such names have the gateway's address.
func FuzzPackets(f *testing.F) {
	h := newHost(f)
	for _, query := range []*wire.Msg{
		question("alpha.lodge.localhost.", wire.TypeA), question("8080-alpha.LODGE.localhost.", wire.TypeAAAA).SetEdns0(4096, true),
		question("example.org.", wire.TypeA), question(`a\.lodge.localhost.`, wire.TypeA), question(".", wire.TypeNS), question("s3.lodge.internal.", wire.TypeA),
	} {
		packed, err := query.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		query := new(wire.Msg)
		if query.Unpack(packet) != nil || len(query.Question) == 1 && query.Question[0].Name == "slow." {
			return
		}
		reply := h.answer(t.Context(), h.a.Identity, "udp", query)
		asked := strings.ToLower(h.resolver.wasAsked())
		if "."+asked == ".lodge.localhost." || strings.HasSuffix("."+asked, ".lodge.internal.") && !strings.HasSuffix(asked, `\.lodge.internal.`) ||
			strings.HasSuffix("."+asked, ".lodge.localhost.") && !strings.HasSuffix(asked, `\.lodge.localhost.`) {
			t.Errorf("the resolver was asked for %q", asked)
		}
		if reply == nil {
			return
		}
		packed, err := reply.Pack()
		if err != nil || len(packed) > maxUDP {
			t.Errorf("%d bytes, %v: %v", len(packed), err, reply)
		}
		if a, ok := first(reply.Answer).(*wire.A); ok && a.A.String() == gateway.LinkLocal.String() {
			if _, ours := h.zoneOf(query.Question[0].Name); !ours {
				t.Errorf("answered for %q", query.Question[0].Name)
			}
		}
	})
}
