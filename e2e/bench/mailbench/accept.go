package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"
)

const recipients = 4 // VMs, each with four of the senders

// sample is what one round has cost.
type sample struct {
	perSecond float64
	cpu       time.Duration // of the server, per message
}

// round sends n messages to a server whose first process is pid; then waits until it has finished them.
func round(addr string, pid, n int, body []byte, vms []string, source func(int) string, finish func() error) (sample, error) {
	all, err := gather(context.Background(), addr, source)
	if err != nil {
		return sample{}, err
	}
	defer all.leave()
	before, err := cpu(pid)
	if err != nil {
		return sample{}, err
	}
	took, err := all.send(n, body, vms)
	if err != nil {
		return sample{}, err
	}
	if err := finish(); err != nil {
		return sample{}, err
	}
	after, err := cpu(pid)
	return sample{float64(n) / took.Seconds(), (after - before) / time.Duration(n)}, err
}

func nothing() error { return nil }

// accept compares with Postfix how many messages per second are safe, and what each costs. Postfix's time of
// the CPU is counted until its mail is in the Maildirs: Lodge's mailbox needs no more.
func accept(ctx context.Context, b *bench) error {
	names := vms(recipients)
	l, err := b.prepare(ctx, "", names...)
	if err != nil {
		return err
	}
	if err := l.start(ctx); err != nil {
		return err
	}
	defer l.stop()
	p, err := b.startPostfix(ctx, names)
	if err != nil {
		return err
	}
	defer p.stop()
	master, err := p.pid()
	if err != nil {
		return err
	}
	sent := 0
	for _, size := range []struct {
		kib, n int
		goal   float64
	}{{4, b.small, 6}, {64, b.large, 2}} {
		var ours, theirs []sample
		for range b.rounds {
			s, err := round(l.smtp, l.pid(), size.n, letter(size.kib<<10), names, anywhere, nothing)
			if err != nil {
				return fmt.Errorf("lodged: %w", err)
			}
			ours = append(ours, s)
			s, err = round(p.smtp, master, size.n, letter(size.kib<<10), names, anywhere, func() error { return p.drained(ctx) })
			if err != nil {
				return fmt.Errorf("postfix: %w", err)
			}
			theirs = append(theirs, s)
			sent += size.n
		}
		printRatio(size.kib, size.goal, ours, theirs)
	}
	if n, err := p.delivered(); err != nil || n != sent {
		return fmt.Errorf("postfix has %d of %d messages in its Maildirs, %w", n, sent, err)
	}
	return nil
}

func printRatio(kib int, goal float64, ours, theirs []sample) {
	a, b := median(ours), median(theirs)
	line(fmt.Sprintf("%d KiB, lodged : Postfix", kib),
		fmt.Sprintf("%.0f : %.0f /s = %.1f", a.perSecond, b.perSecond, a.perSecond/b.perSecond), fmt.Sprintf("≥ %.0f", goal))
	cpu, want := fmt.Sprintf("%.3f : %.3f ms = 1 : %.1f", ms(a.cpu), ms(b.cpu), ms(b.cpu)/ms(a.cpu)), ""
	if kib == 4 {
		want = "≤ 0.2 ms"
	}
	line(fmt.Sprintf("%d KiB, CPU per message", kib), cpu, want)
}

// median takes the rate and the CPU time each by itself.
func median(all []sample) sample {
	rates, costs := make([]float64, 0, len(all)), make([]time.Duration, 0, len(all))
	for _, s := range all {
		rates, costs = append(rates, s.perSecond), append(costs, s.cpu)
	}
	return sample{middle(rates), middle(costs)}
}

func middle[T float64 | time.Duration](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// verdicts compares what a message costs with and without the checks of its sender. The senders have
// addresses of the internet, where SPF applies, each in a net of its own, since nets have rates.
func verdicts(ctx context.Context, b *bench) error {
	if err := command(ctx, "ip", "addr", "replace", "12.0.0.0/16", "dev", "lo"); err != nil {
		return err
	}
	if err := command(ctx, "ip", "route", "replace", "local", "12.0.0.0/16", "dev", "lo"); err != nil {
		return err
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	server, addr, err := zone(
		`sender.example. 3600 TXT "v=spf1 ip4:12.0.0.0/16 -all"`, `_dmarc.sender.example. 3600 TXT "v=DMARC1; p=reject"`,
		`s._domainkey.sender.example. 3600 TXT "v=DKIM1; k=ed25519; p=`+base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))+`"`,
	)
	if err != nil {
		return err
	}
	defer server.Shutdown() //nolint:errcheck // it ends with this program
	body, err := signed(key)
	if err != nil {
		return err
	}
	var results [2]sample
	for i, args := range [][]string{{"-addr", "12.0.0.1"}, {"-addr", "12.0.0.1", "-dns", addr}} {
		if results[i], err = b.checked(ctx, body, args, i); err != nil {
			return err
		}
	}
	line("4 KiB signed, CPU without checks", fmt.Sprintf("%.3f ms", ms(results[0].cpu)), "≤ 0.2 ms")
	line("4 KiB signed, CPU with SPF, DKIM, DMARC", fmt.Sprintf("%.3f ms, %.0f /s", ms(results[1].cpu), results[1].perSecond), "≤ 0.3 ms")
	return nil
}

// checked is the median of some rounds with a server of these arguments.
func (b *bench) checked(ctx context.Context, body []byte, args []string, run int) (sample, error) {
	names := vms(recipients)
	l, err := b.prepare(ctx, "", names...)
	if err != nil {
		return sample{}, err
	}
	if err := l.start(ctx, args...); err != nil {
		return sample{}, err
	}
	defer l.stop()
	var all []sample
	for i := range b.rounds {
		source := func(s int) string { return fmt.Sprintf("12.0.%d.1", (run*b.rounds+i)*sessions+s) }
		s, err := round(l.smtp, l.pid(), b.small, body, names, source, nothing)
		if err != nil {
			return sample{}, err
		}
		all = append(all, s)
	}
	return median(all), nil
}

func signed(key ed25519.PrivateKey) ([]byte, error) {
	out := new(strings.Builder)
	text := strings.TrimSuffix(string(letter(4<<10)), ".\r\n")
	err := dkim.Sign(out, strings.NewReader(text), &dkim.SignOptions{
		Domain: "sender.example", Selector: "s", Signer: key,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	})
	return []byte(out.String() + ".\r\n"), err
}

// zone serves records over UDP on loopback.
func zone(records ...string) (*dns.Server, string, error) {
	known := map[string][]dns.RR{}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, "", err
		}
		known[rr.Header().Name] = append(known[rr.Header().Name], rr)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // it takes no time
	if err != nil {
		return nil, "", err
	}
	s := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, rr := range known[dns.CanonicalName(q.Question[0].Name)] {
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m) // who asked asks again
	})}
	go func() { _ = s.ActivateAndServe() }() // until Shutdown
	return s, c.LocalAddr().String(), nil
}
