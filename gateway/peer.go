package gateway

import (
	"net"
	"net/netip"
)

// Peer is the unit by which limits count connections: a VM, an IPv4 address or an IPv6 /64. The
// zero Peer stands for every connection without an IP address: a pipe, a unix socket.
type Peer struct {
	VM  ID
	Net netip.Prefix
}

// PeerOf returns the Peer at the other end of c. A connection that carries a VM is that VM's,
// whatever its address.
func PeerOf(c net.Conn) Peer {
	if vm := IdentityOf(c); vm.Known() {
		return Peer{VM: vm.ID}
	}
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return Peer{}
	}
	return PeerAt(from.Addr())
}

// PeerAt returns the Peer at addr; the zero Peer for the zero Addr.
func PeerAt(addr netip.Addr) Peer {
	if !addr.IsValid() {
		return Peer{}
	}
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLoopback() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // bits fit the address
	return Peer{Net: prefix}
}

// Loopback reports whether p is an address of this host, where tunnels and proxies end.
func (p Peer) Loopback() bool { return p.Net.IsValid() && p.Net.Addr().IsLoopback() }

// Around is the net around p, which one stranger often has as a whole: an IPv4 /24 or an IPv6 /48. It
// is p itself for a VM and for the zero Peer.
func (p Peer) Around() Peer {
	if !p.Net.IsValid() {
		return p
	}
	bits := 24
	if p.Net.Addr().Is6() {
		bits = 48
	}
	around, _ := p.Net.Addr().Prefix(bits) // bits fit the address
	return Peer{Net: around}
}
