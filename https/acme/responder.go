package acme

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// Limits of the Responder.
const (
	maxResponderConns     = 256 // over TCP
	maxResponderConnsEach = 16  // of one peer
	responderIdle         = 5 * time.Second
	maxQueriesPerConn     = 16
	udpPerSecond          = 500 // full answers; above, resolvers are referred to TCP
	udpPerSecondEach      = 50  // of the net around a peer
	udpAtOnceEach         = 100
	maxResponderUDP       = 1232
	maxQueryBytes         = 512
	maxReadErrors         = 100 // in a row, after which a socket is given up
)

// Responder is a name server for one delegated name: it answers TXT, SOA and NS questions about the
// name itself and about zones of Publish, and refuses all others. An answer over UDP can be ten
// times as large as its question (an RSA key has some 450 bytes), and go to a forged address. Above
// a rate, of the net around the address and of all, answers have the truncation bit alone, and are
// no larger than the questions. It implements Records.
type Responder struct {
	zone   string // the delegated name, in canonical form
	server string // the NS record: a name of this host
	logger *slog.Logger
	conns  *limit.Limit[gateway.Peer]
	each   *limit.Rates[gateway.Peer] // full answers over UDP
	all    *limit.Rates[struct{}]     // as above

	mu     sync.Mutex
	values []string // of the TXT records
	serial uint32
	zones  map[string]published // of Publish, by name in canonical form
}

// published are the records of a zone, by name in canonical form.
type published map[string][]dns.RR

// NewResponder returns a Responder for zone, such as "_acme-challenge.example.com". nameServer is
// the host's name in the delegation.
func NewResponder(zone, nameServer string, logger *slog.Logger) *Responder {
	return &Responder{
		zone: dns.CanonicalName(zone), server: dns.CanonicalName(nameServer), logger: logger,
		conns:  limit.New[gateway.Peer](maxResponderConnsEach, maxResponderConns),
		each:   limit.NewRates[gateway.Peer](udpPerSecondEach, udpAtOnceEach),
		all:    limit.NewRates[struct{}](udpPerSecond, udpPerSecond),
		serial: uint32(time.Now().Unix()), //nolint:gosec // serial numbers wrap (RFC 1982)
		zones:  map[string]published{},
	}
}

// Publish replaces the records of a further zone, which is answered for from then on, whether it is
// delegated or not. They are TXT records in the format of zone files, at names in the zone.
func (r *Responder) Publish(zone string, records ...string) error {
	zone = dns.CanonicalName(zone)
	all := published{}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return fmt.Errorf("parse record: %w", err)
		}
		if _, ok := rr.(*dns.TXT); !ok || !dns.IsSubDomain(zone, dns.CanonicalName(rr.Header().Name)) {
			return fmt.Errorf("publish %q: it is no TXT record in %s", text, zone)
		}
		name := dns.CanonicalName(rr.Header().Name)
		all[name] = append(all[name], rr)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.zones[zone] = all
	r.serial++
	return nil
}

// Present implements Records. The name that the authority asks for is the zone, or a CNAME of it.
func (r *Responder) Present(_ context.Context, _, value string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values = append(r.values, value)
	r.serial++
	return nil
}

// Remove implements Records.
func (r *Responder) Remove(_ context.Context, _, value string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values = slices.DeleteFunc(r.values, func(v string) bool { return v == value })
	r.serial++
	return nil
}

// ServeUDP answers on c until it is closed.
func (r *Responder) ServeUDP(c net.PacketConn) error {
	buf := make([]byte, maxQueryBytes)
	for errs := 0; ; {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if errs++; errs == maxReadErrors {
				return err
			}
			continue // such as an ICMP error for an earlier answer
		}
		errs = 0
		if reply := r.answer(buf[:n], true, r.takeUDP(from)); reply != nil {
			_, _ = c.WriteTo(reply, from) // UDP: the resolver repeats its query
		}
	}
}

// takeUDP reports whether a full answer over UDP may go to an address.
func (r *Responder) takeUDP(to net.Addr) bool {
	var peer gateway.Peer
	if at, ok := to.(*net.UDPAddr); ok {
		peer = gateway.PeerAt(at.AddrPort().Addr()).Around()
	}
	now := time.Now()
	return r.each.Take(peer, now) && r.all.Take(struct{}{}, now)
}

// ServeTCP answers on l until it is closed.
func (r *Responder) ServeTCP(l net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for lasting := gateway.Lasting(l); ; {
		c, err := lasting.Accept()
		if err != nil {
			return nil //nolint:nilerr // it is closed
		}
		leave, ok := r.conns.Enter(gateway.PeerOf(c))
		if !ok {
			_ = c.Close() // over its limit
			continue
		}
		conns.Go(func() {
			defer leave()
			r.serveConn(c)
		})
	}
}

func (r *Responder) serveConn(c net.Conn) {
	defer c.Close() //nolint:errcheck // nothing was buffered that could be lost
	framed := &dns.Conn{Conn: c}
	for range maxQueriesPerConn {
		if c.SetDeadline(time.Now().Add(responderIdle)) != nil {
			return
		}
		query, err := framed.ReadMsgHeader(nil)
		if err != nil {
			return // idle, gone, or not DNS
		}
		reply := r.answer(query, false, true)
		if reply == nil {
			return
		}
		if _, err := framed.Write(reply); err != nil {
			return
		}
	}
}

// answer returns the reply to a query, both as bytes; nil for what gets none. full is false for an
// answer that only refers to TCP.
func (r *Responder) answer(packet []byte, udp, full bool) []byte {
	query := new(dns.Msg)
	if query.Unpack(packet) != nil || query.Response || len(query.Question) != 1 {
		return nil
	}
	reply := new(dns.Msg).SetReply(query)
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
	}
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(maxResponderUDP, false)
		if udp {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxResponderUDP)
		}
	}
	switch zone, rcode := r.zoneOf(query); {
	case zone == "":
		reply.Rcode = rcode
	case !full:
		reply.Truncated = true
	default:
		reply.Rcode = rcode
		r.records(reply, zone, query.Question[0])
		reply.Truncate(size)
	}
	out, err := reply.Pack()
	if err != nil {
		r.logger.Debug("dns answer not packed", "err", err)
		return nil
	}
	return out
}

// zoneOf returns the zone of a question, and whether the name exists there; "" and the reason for a
// question that is refused.
func (r *Responder) zoneOf(query *dns.Msg) (zone string, rcode int) {
	q := query.Question[0]
	if query.Opcode != dns.OpcodeQuery {
		return "", dns.RcodeNotImplemented
	}
	if q.Qclass != dns.ClassINET {
		return "", dns.RcodeRefused
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name := dns.CanonicalName(q.Name)
	for zone, records := range r.zones {
		switch {
		case !dns.IsSubDomain(zone, name):
		case name == zone || records[name] != nil:
			return zone, dns.RcodeSuccess
		default:
			return zone, dns.RcodeNameError
		}
	}
	switch {
	case name == r.zone:
		return r.zone, dns.RcodeSuccess
	case dns.IsSubDomain(r.zone, name):
		return r.zone, dns.RcodeNameError
	}
	return "", dns.RcodeRefused
}

// records fills an answer about a name in a zone. Names and types that it does not have get the
// SOA, for negative caching (RFC 2308 §3).
func (r *Responder) records(reply *dns.Msg, zone string, q dns.Question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reply.Authoritative = true
	ttl := r.zones[zone].ttl()
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: zone, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
	}
	soa := &dns.SOA{
		Hdr: header(dns.TypeSOA), Ns: r.server, Mbox: "hostmaster." + r.server, Serial: r.serial,
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
	name := dns.CanonicalName(q.Name)
	switch {
	case q.Qtype == dns.TypeSOA && name == zone:
		reply.Answer = []dns.RR{soa}
	case q.Qtype == dns.TypeNS && name == zone:
		reply.Answer = []dns.RR{&dns.NS{Hdr: header(dns.TypeNS), Ns: r.server}}
	case q.Qtype == dns.TypeTXT && name == r.zone:
		for _, value := range r.values {
			reply.Answer = append(reply.Answer, &dns.TXT{Hdr: header(dns.TypeTXT), Txt: []string{value}})
		}
	case q.Qtype == dns.TypeTXT:
		reply.Answer = append(reply.Answer, r.zones[zone][name]...)
	}
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{soa}
	}
}

// ttl is the shortest of the records', which is that of the zone too; 0 without any.
func (p published) ttl() uint32 {
	var shortest uint32
	for _, records := range p {
		for _, rr := range records {
			if ttl := rr.Header().Ttl; shortest == 0 || ttl < shortest {
				shortest = ttl
			}
		}
	}
	return shortest
}
