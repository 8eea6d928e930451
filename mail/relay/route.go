package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// Limits on what is tried for one domain.
const (
	maxHosts = 8
	maxAddrs = 16 // of all of them
)

// server is one address of a mail server.
type server struct {
	host   string // its name
	addr   netip.Addr
	strict bool // it needs TLS, with a certificate for its name
}

// route returns the servers of a domain in the order of RFC 5321 §5.1.
func (q *Queue) route(ctx context.Context, domain string) ([]server, *failure) {
	name, err := idna.Lookup.ToASCII(strings.TrimSuffix(domain, "."))
	if err != nil || !strings.Contains(name, ".") && name != "localhost" {
		return nil, permanent("5.1.2", "%s is no domain that DNS can have", domain)
	}
	hosts, failed := q.exchangers(ctx, name)
	if failed != nil {
		return nil, failed
	}
	policy := q.policies.of(ctx, name)
	if policy.enforce {
		hosts = slices.DeleteFunc(hosts, func(host string) bool { return !policy.matches(host) })
		if len(hosts) == 0 {
			return nil, temporary("4.7.0", "the policy of %s (MTA-STS) names none of its mail servers", name)
		}
	}
	var servers []server
	var later, refused *failure
	for _, host := range hosts {
		addrs, err := q.addresses(ctx, host)
		if err != nil {
			later = temporary("4.4.3", "DNS does not answer about %s", host)
		}
		for _, a := range addrs {
			if why := q.forbidden(a); why != "" {
				refused = permanent("5.4.4", "%s has the address %s, which is %s", host, a, why)
			} else if len(servers) < maxAddrs {
				servers = append(servers, server{host, a, policy.enforce})
			}
		}
	}
	switch {
	case len(servers) > 0:
		return servers, nil
	case later != nil:
		return nil, later
	case refused != nil:
		return nil, refused
	case len(hosts) == 1 && hosts[0] == name:
		return nil, permanent("5.1.2", "the domain %s has no mail server and no address", name)
	}
	return nil, permanent("5.4.4", "the mail servers of %s have no address", name)
}

// exchangers returns the names of a domain's mail servers; the domain itself if it names none.
func (q *Queue) exchangers(ctx context.Context, name string) ([]string, *failure) {
	records, err := q.config.Resolver.Ask(ctx, name, dns.TypeMX)
	if notFound(err) {
		return []string{name}, nil
	}
	if err != nil {
		return nil, temporary("4.4.3", "DNS does not answer about %s", name)
	}
	var all []*dns.MX
	for _, rr := range records {
		if mx, ok := rr.(*dns.MX); ok {
			all = append(all, mx)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(a, b *dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	var hosts []string
	for _, mx := range all {
		host := strings.ToLower(strings.TrimSuffix(mx.Mx, "."))
		if host == q.config.Domain { // this host: it and those behind it would send the mail back here
			break
		}
		if host != "" && len(hosts) < maxHosts && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	switch {
	case len(hosts) > 0:
		return hosts, nil
	case len(all) > 0 && all[0].Mx == ".":
		return nil, permanent("5.1.10", "the domain %s accepts no mail (RFC 7505)", name)
	}
	return nil, permanent("5.4.6", "the mail server of %s is this host, which does not accept its mail", name)
}

// addresses returns those of a host. An error means that there may be more.
func (q *Queue) addresses(ctx context.Context, host string) (all []netip.Addr, err error) {
	for _, kind := range []uint16{dns.TypeAAAA, dns.TypeA} {
		records, failed := q.config.Resolver.Ask(ctx, host, kind)
		if failed != nil && !notFound(failed) {
			err = failed
		}
		for _, rr := range records {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if a, ok := netip.AddrFromSlice(ip); ok {
				all = append(all, a.Unmap())
			}
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all, err
}

func notFound(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// dialWeb connects to a host that a stranger's DNS names.
func (q *Queue) dialWeb(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	addrs, err := q.addresses(ctx, host)
	for _, a := range addrs[:min(len(addrs), 4)] {
		if why := q.forbidden(a); why != "" {
			err = errors.New(a.String() + " is " + why)
			continue
		}
		var c net.Conn
		dialer := net.Dialer{Timeout: policyPatience / 3}
		if c, err = dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return c, nil
		}
	}
	if err == nil {
		err = errors.New("it has no address")
	}
	return nil, fmt.Errorf("connect to %s: %w", host, err)
}

// special are nets of RFC 6890 that are no one's on the internet, or that lead to IPv4 addresses, which
// may be such.
func special() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10",
	} {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// forbidden returns why nothing is sent to an address: a stranger's records must not lead into this host,
// its VMs or its private networks. It is empty if the address is on the internet.
func (q *Queue) forbidden(a netip.Addr) string {
	has := func(p netip.Prefix) bool { return p.Contains(a) }
	switch {
	case q.config.inside:
		return ""
	case !a.IsGlobalUnicast() || a.IsPrivate() || slices.ContainsFunc(special(), has):
		return "not on the internet"
	case slices.ContainsFunc(q.config.Refuse, has):
		return "one of a VM"
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return "perhaps one of this host"
	}
	for _, o := range own {
		if ipNet, ok := o.(*net.IPNet); ok && ipNet.IP.Equal(a.AsSlice()) {
			return "one of this host"
		}
	}
	return ""
}
