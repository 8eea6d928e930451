package domains

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"lodge/gateway"
)

// Limits on what DNS can make large.
const (
	maxAliases = 8
	maxUDP     = 1232 // no fragments on any path (DNS flag day 2020)
)

// resolver asks the host's resolvers.
type resolver struct{ servers []string }

func (v *Verifier) resolver() (*resolver, error) {
	if v.Servers != nil {
		return &resolver{v.Servers}, nil
	}
	config, err := dns.ClientConfigFromFile(v.ResolvConf)
	if err != nil {
		return nil, unanswered(fmt.Errorf("read resolvers: %w", err))
	}
	r := &resolver{}
	for _, server := range config.Servers {
		r.servers = append(r.servers, net.JoinHostPort(server, config.Port))
	}
	return r, nil
}

// txt returns the texts of a name's TXT records; none for a name that does not exist.
func (r *resolver) txt(ctx context.Context, name string) (texts []string, err error) {
	answer, err := r.ask(ctx, name, dns.TypeTXT)
	for _, rr := range answer {
		if txt, ok := rr.(*dns.TXT); ok {
			texts = append(texts, strings.Join(txt.Txt, ""))
		}
	}
	return texts, err
}

// aliases returns the names that a name is an alias of, the nearest first, in lower case and without
// the final dot.
func (r *resolver) aliases(ctx context.Context, name string) (all []string, err error) {
	for len(all) < maxAliases {
		answer, err := r.ask(ctx, name, dns.TypeCNAME)
		if err != nil {
			return nil, err
		}
		target := ""
		for _, rr := range answer {
			if cname, ok := rr.(*dns.CNAME); ok && canonical(cname.Hdr.Name) == name {
				target = canonical(cname.Target)
			}
		}
		if target == "" || slices.Contains(all, target) {
			break
		}
		all, name = append(all, target), target
	}
	return all, nil
}

// addrs returns the IPv4 and IPv6 addresses of a name.
func (r *resolver) addrs(ctx context.Context, name string) (all []netip.Addr, err error) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := r.ask(ctx, name, kind)
		if err != nil {
			return nil, err
		}
		for _, rr := range answer {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if addr, ok := netip.AddrFromSlice(ip); ok {
				all = append(all, addr.Unmap())
			}
		}
	}
	return all, nil
}

// ask queries one resolver after the other until one has an answer: records, or that there are
// none. It follows no alias.
func (r *resolver) ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	err := errors.New("the host has no resolvers")
	for _, server := range r.servers {
		var reply *dns.Msg
		if reply, err = exchange(ctx, server, name, kind); err != nil {
			continue
		}
		switch reply.Rcode {
		case dns.RcodeSuccess, dns.RcodeNameError:
			return reply.Answer, nil
		}
		err = fmt.Errorf("ask resolver %s for %s: %s", server, name, dns.RcodeToString[reply.Rcode])
	}
	return nil, err
}

// exchange asks one resolver, by TCP if the answer does not fit into a datagram.
func exchange(ctx context.Context, server, name string, kind uint16) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	query.SetEdns0(maxUDP, false)
	for _, network := range []string{"udp", "tcp"} {
		client := &dns.Client{Net: network, Timeout: patience, UDPSize: maxUDP}
		reply, _, err := client.ExchangeContext(ctx, query, server)
		if err != nil {
			return nil, fmt.Errorf("ask resolver %s for %s: %w", server, name, err)
		}
		// The library compares IDs; the question has to be the same too (RFC 5452 §4.2).
		if len(reply.Question) != 1 || reply.Question[0].Qtype != kind || canonical(reply.Question[0].Name) != canonical(name) {
			return nil, fmt.Errorf("ask resolver %s for %s: it answered another question", server, name)
		}
		if !reply.Truncated {
			return reply, nil
		}
	}
	return nil, gateway.Invalid("the answer for %s is too large", name)
}

// canonical returns a name in lower case without the final dot.
func canonical(name string) string { return strings.TrimSuffix(dns.CanonicalName(name), ".") }
