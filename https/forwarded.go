package https

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"lodge/gateway"
)

// believeProxy puts the client's address in r.RemoteAddr when a trusted proxy sent the request. Its
// port is then 0. Connections on taps are VMs', which are never proxies, and proxies speak no HTTP/3.
func (s *Server) believeProxy(r *http.Request) {
	if len(s.TrustedProxies) == 0 || r.ProtoMajor == 3 || gateway.VMFrom(r.Context()).Known() {
		return
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil { // not TCP
		return
	}
	from := peer.Addr().Unmap().WithZone("")
	if addr := clientAddr(from, r.Header, s.TrustedProxies); addr != from {
		r.RemoteAddr = netip.AddrPortFrom(addr, 0).String()
	}
}

// trusts reports whether addr is a trusted proxy's.
func (s *Server) trusts(addr netip.Addr) bool { return isIn(s.TrustedProxies, addr) }

func isIn(nets []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// standsForMany reports whether strangers may come from the address of an owner. Tunnels without
// headers end at loopback. Names of localhost lead each browser to its own machine (RFC 6761 §6.3), so
// there a browser that comes from loopback is on this one.
func (s *Server) standsForMany(addr netip.Addr) bool {
	local := s.Domain == "localhost" || strings.HasSuffix(s.Domain, ".localhost")
	return s.trusts(addr) || addr.IsLoopback() && !local
}

// clientAddr returns the last hop that is not trusted: of peer and, while each is trusted, the
// addresses of X-Forwarded-For from right to left. A proxy appends its peer on the right, so what is
// further left is the client's claim. An element that is no address ends the search.
func clientAddr(peer netip.Addr, h http.Header, trusted []netip.Prefix) netip.Addr {
	addr := peer
	hops := strings.Split(strings.Join(h["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, ok := parseHop(hop)
		if !ok || !isIn(trusted, addr) {
			break
		}
		addr = next
	}
	return addr
}

// parseHop reads an element of X-Forwarded-For: an address, which some proxies give a port.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	addr, err := netip.ParseAddr(s)
	if err != nil {
		withPort, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone(""), true
}
