package acme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// recordTTL is that of the TXT records, in seconds.
const recordTTL = 60

// updateLimit is how long the name server may take for one answer.
const updateLimit = 15 * time.Second

// RFC2136 changes records by dynamic updates (RFC 2136), signed with a key that the name server
// shares (RFC 8945). It implements Records.
type RFC2136 struct {
	Server    string        // host:port of the zone's primary name server
	Key       string        // name of the key
	Algorithm string        // such as "hmac-sha256"
	Secret    string        // the key in base64
	Wait      time.Duration // how long secondary name servers take to copy the zone
}

// Present implements Records.
func (u *RFC2136) Present(ctx context.Context, fqdn, value string) error {
	if err := u.update(ctx, fqdn, value, (*dns.Msg).Insert); err != nil {
		return err
	}
	select {
	case <-time.After(u.Wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Remove implements Records.
func (u *RFC2136) Remove(ctx context.Context, fqdn, value string) error {
	return u.update(ctx, fqdn, value, (*dns.Msg).Remove)
}

func (u *RFC2136) update(ctx context.Context, fqdn, value string, change func(*dns.Msg, []dns.RR)) error {
	name := dns.Fqdn(fqdn)
	zone, err := u.zone(ctx, name)
	if err != nil {
		return fmt.Errorf("find zone of %s: %w", fqdn, err)
	}
	m := new(dns.Msg).SetUpdate(zone)
	change(m, []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL}, Txt: []string{value},
	}})
	// the reply is signed too, so nobody else can claim that the record is there
	key := dns.CanonicalName(u.Key)
	m.SetTsig(key, dns.CanonicalName(u.Algorithm), 300, time.Now().Unix())
	reply, err := u.exchange(ctx, m, map[string]string{key: u.Secret})
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = errors.New(dns.RcodeToString[reply.Rcode])
	}
	if err != nil {
		return fmt.Errorf("update zone %s at %s: %w", zone, u.Server, err)
	}
	return nil
}

// zone asks the server which of its zones a name is in.
func (u *RFC2136) zone(ctx context.Context, name string) (string, error) {
	reply, err := u.exchange(ctx, new(dns.Msg).SetQuestion(name, dns.TypeSOA), nil)
	if err != nil {
		return "", err
	}
	for _, rr := range append(reply.Answer, reply.Ns...) {
		if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
			return soa.Hdr.Name, nil
		}
	}
	return "", fmt.Errorf("%s has no zone for it (%s)", u.Server, dns.RcodeToString[reply.Rcode])
}

func (u *RFC2136) exchange(ctx context.Context, m *dns.Msg, keys map[string]string) (*dns.Msg, error) {
	client := dns.Client{Net: "tcp", TsigSecret: keys, Timeout: updateLimit}
	reply, _, err := client.ExchangeContext(ctx, m, u.Server)
	return reply, err
}
