package screen

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	dnsblPatience = 3 * time.Second
	resultLife    = time.Minute
	maxResults    = 4096
)

// Listing is the entry of an address in a DNSBL.
type Listing struct {
	Zone string
	Text string // why, as the zone has it: printable ASCII; may be empty
}

// Listed reports whether an address is on one of the lists; the first of them in the order of the
// settings counts. Addresses that are not on the internet are on none. The result is used again for
// a minute, one without an answer of DNS too: a client may name a hundred recipients at once.
func (s *Screen) Listed(ctx context.Context, addr netip.Addr) (Listing, bool) {
	addr = addr.Unmap().WithZone("")
	if len(s.config.Blocklists) == 0 || !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return Listing{}, false
	}
	if r, ok := s.results.get(addr, time.Now()); ok {
		return r.listing, r.listed
	}
	var r result
	r.listing, r.listed = s.lookUp(ctx, addr)
	if ctx.Err() == nil { // else nothing is known of the lists
		s.results.put(addr, r, time.Now())
	}
	return r.listing, r.listed
}

func (s *Screen) lookUp(ctx context.Context, addr netip.Addr) (Listing, bool) {
	ctx, cancel := context.WithTimeout(ctx, dnsblPatience)
	defer cancel()
	found := make([]bool, len(s.config.Blocklists))
	var all sync.WaitGroup
	for i, zone := range s.config.Blocklists {
		all.Go(func() { found[i] = s.lists(ctx, zone, addr) })
	}
	all.Wait()
	for i, zone := range s.config.Blocklists {
		if found[i] {
			return Listing{Zone: zone, Text: s.why(ctx, zone, addr)}, true
		}
	}
	return Listing{}, false
}

// unlisted is the address that no list has (RFC 5782 §5).
func unlisted(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.MustParseAddr("::ffff:127.0.0.1")
}

// lists reports whether a list has an address, and is known not to have everybody.
func (s *Screen) lists(ctx context.Context, zone string, addr netip.Addr) bool {
	if listed, err := s.has(ctx, zone, addr); err != nil || !listed {
		return false
	}
	all, err := s.has(ctx, zone, unlisted(addr))
	return err == nil && !all // no answer is no proof
}

// has reports whether a list has an address. Its answers are in 127.0.0.0/8 (RFC 5782 §2.1). Those
// in 127.255.255.0/24 are how several lists report that they do not answer the question. It fails
// if there is no clear answer.
func (s *Screen) has(ctx context.Context, zone string, addr netip.Addr) (bool, error) {
	records, err := s.config.Resolver.Ask(ctx, listedName(zone, addr), dns.TypeA)
	if failed, ok := errors.AsType[*net.DNSError](err); ok && failed.IsNotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask blocklist: %w", err)
	}
	for _, rr := range records {
		a, ok := rr.(*dns.A)
		if !ok {
			continue
		}
		if ip := a.A.To4(); ip != nil && ip[0] == 127 && (ip[1] != 255 || ip[2] != 255) {
			return true, nil
		}
	}
	return false, nil
}

func (s *Screen) why(ctx context.Context, zone string, addr netip.Addr) string {
	records, err := s.config.Resolver.Ask(ctx, listedName(zone, addr), dns.TypeTXT)
	if err != nil {
		return ""
	}
	for _, rr := range records {
		if txt, ok := rr.(*dns.TXT); ok {
			return printable(strings.Join(txt.Txt, ""))
		}
	}
	return ""
}

// listedName is the name of an address in a list: its octets, or nibbles, the last one first (RFC
// 5782 §2.1, §2.4).
func listedName(zone string, addr netip.Addr) string {
	var parts []string
	if addr.Is4() {
		parts = strings.Split(addr.String(), ".")
	} else {
		b := addr.As16()
		parts = strings.Split(hex.EncodeToString(b[:]), "")
	}
	var name strings.Builder
	for _, part := range slices.Backward(parts) {
		name.WriteString(part)
		name.WriteByte('.')
	}
	return name.String() + zone
}

// results are those of the last minute, by address. It is safe for concurrent use.
type results struct {
	mu sync.Mutex
	by map[netip.Addr]result
}

type result struct {
	listing Listing
	listed  bool
	until   time.Time
}

func (r *results) get(addr netip.Addr, now time.Time) (result, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.by[addr]
	return found, ok && now.Before(found.until)
}

// put keeps a result. When there is no room, all others are dropped.
func (r *results) put(addr netip.Addr, found result, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.by) >= maxResults || r.by == nil {
		r.by = map[netip.Addr]result{}
	}
	found.until = now.Add(resultLife)
	r.by[addr] = found
}
