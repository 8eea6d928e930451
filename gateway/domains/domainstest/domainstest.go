// Package domainstest runs a DNS server with records that a test sets.
package domainstest

import (
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// Server is a DNS server on loopback, by UDP and TCP. It is safe for concurrent use.
type Server struct {
	Addr string // host:port

	mu        sync.Mutex
	records   map[string]dns.RR // by their text
	rcode     int
	delegated map[string]string // zone → the address of its server
}

// Start serves records in the format of zone files until the test ends, on any port.
func Start(tb testing.TB, records ...string) *Server {
	tb.Helper()
	return StartAt(tb, 0, records...)
}

// StartAt is Start on a port.
func StartAt(tb testing.TB, port int, records ...string) *Server {
	tb.Helper()
	packets, streams := listen(tb, port)
	s := &Server{Addr: packets.LocalAddr().String(), records: map[string]dns.RR{}, delegated: map[string]string{}}
	s.Set(tb, records...)
	var serving sync.WaitGroup
	tb.Cleanup(serving.Wait) // after the Shutdowns
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		serving.Go(func() {
			if err := server.ActivateAndServe(); err != nil {
				tb.Errorf("serve DNS: %v", err)
			}
		})
		<-started
		tb.Cleanup(func() { _ = server.Shutdown() }) // ActivateAndServe has the error
	}
	return s
}

// listen listens on one port, for UDP and TCP; 0 is any.
func listen(tb testing.TB, port int) (net.PacketConn, net.Listener) {
	tb.Helper()
	for {
		packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			tb.Fatal(err)
		}
		streams, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: packets.LocalAddr().(*net.UDPAddr).Port})
		if err == nil {
			return packets, streams
		}
		if cerr := packets.Close(); cerr != nil || port != 0 || !errors.Is(err, syscall.EADDRINUSE) { // TCP's port is another's
			tb.Fatal(err, cerr)
		}
	}
}

// Set replaces all records.
func (s *Server) Set(tb testing.TB, records ...string) {
	tb.Helper()
	parsed := map[string]dns.RR{}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			tb.Fatal(err)
		}
		parsed[text] = rr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = parsed
}

// Fail makes every later answer one with that code; dns.RcodeSuccess ends it.
func (s *Server) Fail(rcode int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcode = rcode
}

// Delegate has another server, host:port, answer for a zone.
func (s *Server) Delegate(zone, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delegated[dns.CanonicalName(zone)] = to
}

// ask returns the answer of the server to which the name is delegated; nil if it is to none.
func (s *Server) ask(query *dns.Msg) *dns.Msg {
	s.mu.Lock()
	to := ""
	for zone, server := range s.delegated {
		if dns.IsSubDomain(zone, dns.CanonicalName(query.Question[0].Name)) {
			to = server
		}
	}
	s.mu.Unlock()
	if to == "" {
		return nil
	}
	reply, err := dns.Exchange(query, to)
	if err != nil {
		return new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
	}
	return reply
}

// ServeDNS implements dns.Handler: it follows aliases, as a resolver does.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	if reply := s.ask(query); reply != nil {
		_ = w.WriteMsg(reply) // the client has left
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := new(dns.Msg).SetReply(query)
	q := query.Question[0]
	for name := dns.CanonicalName(q.Name); name != "" && len(reply.Answer) < 16; {
		next := ""
		for _, rr := range s.at(name) {
			cname, alias := rr.(*dns.CNAME)
			if rr.Header().Rrtype != q.Qtype && !alias {
				continue
			}
			reply.Answer = append(reply.Answer, rr)
			if alias && q.Qtype != dns.TypeCNAME {
				next = dns.CanonicalName(cname.Target)
			}
		}
		name = next
	}
	if reply.Rcode = s.rcode; s.rcode != dns.RcodeSuccess {
		reply.Answer = nil
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		reply.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(reply) // the client has left
}

// at returns the records at a name, or those of the nearest wildcard (RFC 4592).
func (s *Server) at(name string) (all []dns.RR) {
	sorted := slices.Sorted(maps.Keys(s.records))
	for owner := name; ; {
		for _, text := range sorted {
			if rr := s.records[text]; dns.CanonicalName(rr.Header().Name) == owner {
				found := dns.Copy(rr)
				found.Header().Name = name
				all = append(all, found)
			}
		}
		_, parent, ok := strings.Cut(strings.TrimPrefix(owner, "*."), ".")
		if len(all) > 0 || !ok || parent == "" {
			return all
		}
		owner = "*." + parent
	}
}
