package dns

import (
	"net"

	wire "github.com/miekg/dns"

	"lodge/gateway"
)

// reverseName is the name of the gateway's address in reverse lookups (RFC 1035 §3.5).
const reverseName = "254.169.254.169.in-addr.arpa."

// gatewayName is the gateway's own name.
const gatewayName = "gateway." + gateway.InternalDomain + "."

// zoneOf finds the own zone that name is in.
func (s *Server) zoneOf(name string) (zone string, own bool) {
	for _, zone := range s.zones {
		if wire.IsSubDomain(zone, name) {
			return zone, true
		}
	}
	return "", false
}

// own answers a question about a name in an own zone: an address, nothing (NODATA, RFC 2308 §2.2),
// or no such name.
func (s *Server) own(reply *wire.Msg, zone string) {
	reply.Authoritative = true
	q := reply.Question[0]
	exists, address := s.lookup(zone, labelsBelow(zone, q.Name))
	header := wire.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: wire.ClassINET, Ttl: ttl}
	switch {
	case !exists:
		reply.Rcode = wire.RcodeNameError
	case q.Qtype == wire.TypeA && address:
		reply.Answer = []wire.RR{&wire.A{Hdr: header, A: net.IP(gateway.LinkLocal.AsSlice())}}
	case q.Qtype == wire.TypePTR && zone == reverseName:
		reply.Answer = []wire.RR{&wire.PTR{Hdr: header, Ptr: gatewayName}}
	case q.Qtype == wire.TypeSOA && wire.CanonicalName(q.Name) == wire.CanonicalName(zone):
		reply.Answer = []wire.RR{soa(zone)}
	}
	if reply.Answer == nil {
		reply.Ns = []wire.RR{soa(zone)} // negative answers are cached for Minttl
	}
}

// labelsBelow returns the labels of name in front of zone, in lower case.
func labelsBelow(zone, name string) []string {
	labels := wire.SplitDomainName(wire.CanonicalName(name))
	return labels[:len(labels)-wire.CountLabel(zone)]
}

// lookup reports whether the name exists in the zone, and whether it has the gateway's address.
func (s *Server) lookup(zone string, labels []string) (exists, address bool) {
	last := len(labels) - 1
	switch zone {
	case reverseName:
		return last < 0, false
	case wire.Fqdn(gateway.InternalDomain):
		if last < 0 {
			return true, false
		}
		known := labels[last] == "s3" || last == 0 && (labels[0] == "metadata" || labels[0] == "gateway") || s.isVM(labels[last], last > 0)
		return known, known
	default:
		known := last < 0 || labels[last] == "s3" || s.isVM(labels[last], last > 0)
		return known, known
	}
}

// isVM reports whether label, right below the domain, is a VM (or, without anything in front, a
// port of one).
func (s *Server) isVM(label string, deeper bool) bool {
	name, port, err := gateway.SplitHost(label)
	if err != nil || (deeper && port != gateway.DefaultPort) {
		return false
	}
	_, ok := s.Directory.ByName(name)
	return ok
}

// soa is the SOA record of an own zone; of its numbers only Minttl, in seconds, has a meaning here.
func soa(zone string) wire.RR {
	return &wire.SOA{
		Hdr: wire.RR_Header{Name: zone, Rrtype: wire.TypeSOA, Class: wire.ClassINET, Ttl: ttl},
		Ns:  gatewayName, Mbox: "postmaster." + gatewayName,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}
