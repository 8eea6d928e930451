package verdict

import (
	"context"
	"net"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// maxQuestions of SPF are asked for one message, and as many of DKIM and DMARC.
const maxQuestions = 100

// lookup asks what one message needs. It is an spf.DNSResolver.
type lookup struct {
	resolver *Resolver
	ctx      context.Context //nolint:containedctx // of one Check; DKIM's and DMARC's library pass none on
	asked    atomic.Int32
}

func (r *lookup) ask(name string, kind uint16) ([]dns.RR, error) {
	if r.asked.Add(1) > maxQuestions {
		return nil, temporary(name, "too many questions for one message")
	}
	return r.resolver.Ask(r.ctx, name, kind)
}

// LookupTXT implements spf.DNSResolver.
func (r *lookup) LookupTXT(_ context.Context, name string) (texts []string, err error) {
	records, err := r.ask(name, dns.TypeTXT)
	for _, rr := range records {
		if txt, ok := rr.(*dns.TXT); ok {
			texts = append(texts, strings.Join(txt.Txt, ""))
		}
	}
	return texts, err
}

// LookupMX implements spf.DNSResolver.
func (r *lookup) LookupMX(_ context.Context, name string) (all []*net.MX, err error) {
	records, err := r.ask(name, dns.TypeMX)
	for _, rr := range records {
		if mx, ok := rr.(*dns.MX); ok {
			all = append(all, &net.MX{Host: mx.Mx, Pref: mx.Preference})
		}
	}
	return all, err
}

// LookupIPAddr implements spf.DNSResolver: a name has no address only if it has none of either kind.
func (r *lookup) LookupIPAddr(_ context.Context, name string) (all []net.IPAddr, err error) {
	records, err := r.ask(name, dns.TypeA)
	if err == nil || isNotFound(err) {
		more, failed := r.ask(name, dns.TypeAAAA)
		if records = append(records[:len(records):len(records)], more...); len(records) > 0 && isNotFound(failed) {
			failed = nil
		}
		err = failed
	}
	for _, rr := range records {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, net.IPAddr{IP: rr.A})
		case *dns.AAAA:
			all = append(all, net.IPAddr{IP: rr.AAAA})
		}
	}
	return all, err
}

// LookupAddr implements spf.DNSResolver.
func (r *lookup) LookupAddr(_ context.Context, addr string) (names []string, err error) {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, notFound(addr)
	}
	records, err := r.ask(name, dns.TypePTR)
	for _, rr := range records {
		if ptr, ok := rr.(*dns.PTR); ok {
			names = append(names, ptr.Ptr)
		}
	}
	return names, err
}

func notFound(name string) error {
	return &net.DNSError{Err: "no such record", Name: name, IsNotFound: true}
}

func temporary(name, text string) error {
	return &net.DNSError{Err: text, Name: name, IsTemporary: true}
}

func isNotFound(err error) bool {
	failed, ok := err.(*net.DNSError) //nolint:errorlint // as ask returns it
	return ok && failed.IsNotFound
}

// printable reports whether a name can be asked for as it is: a backslash would begin an escape.
func printable(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' || c == '\\' })
}

// hostName returns a domain in lower case and A-labels, without a final dot; empty if it is no host name.
// An underscore is accepted: some senders have one.
func hostName(domain string) string {
	domain = strings.TrimSuffix(strings.ToLower(domain), ".")
	if !printable(domain) {
		var err error
		if domain, err = idna.Lookup.ToASCII(domain); err != nil {
			return ""
		}
	}
	if len(domain) > 253 {
		return ""
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return ""
		}
	}
	return domain
}
