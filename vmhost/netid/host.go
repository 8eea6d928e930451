package netid

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// present is the state of all taps in the kernel, by one listing of each kind: a thousand taps cost
// little more than one. The zero value has none.
type present struct {
	taps       map[string]netlink.Link // interfaces whose names begin with "lg"
	addrs      map[int]bool            // by index: has gateway.LinkLocal
	routes     map[int]netip.Addr      // by index: the address that is routed to it
	neighbours map[int]neighbourEntry
	around     []netip.Prefix // IPv4 networks that the host reaches without a router, taps excepted
	flows      error          // why the flows of guests without a tap could not be removed
}

// neighbourEntry is a permanent neighbour entry.
type neighbourEntry struct {
	addr netip.Addr
	mac  string
}

// indexes returns the interface indexes of the taps.
func (p present) indexes() map[int]bool {
	all := make(map[int]bool, len(p.taps))
	for _, tap := range p.taps {
		all[tap.Attrs().Index] = true
	}
	return all
}

// withoutTap returns the addresses of the guests that have no tap.
func (p present) withoutTap(g guests) (addrs []netip.Addr) {
	for _, vm := range g {
		if p.taps[vm.Tap()] == nil {
			addrs = append(addrs, vm.Addr)
		}
	}
	return addrs
}

// hasTapOf reports whether one of the guests has its tap.
func (p present) hasTapOf(g guests) bool {
	for _, vm := range g {
		if p.taps[vm.Tap()] != nil {
			return true
		}
	}
	return false
}

// repeated calls a listing again when a change has interrupted it: its result is incomplete then.
func repeated(list func() error) error {
	const tries = 5
	err := list()
	for range tries - 1 {
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		err = list()
	}
	return err
}

// look lists the state of all taps.
func look() (p present, err error) {
	err = repeated(func() error {
		p, err = lookOnce()
		return err
	})
	return p, err
}

func lookOnce() (present, error) {
	p := present{
		taps: map[string]netlink.Link{}, addrs: map[int]bool{},
		routes: map[int]netip.Addr{}, neighbours: map[int]neighbourEntry{},
	}
	links, err := netlink.LinkList()
	if err != nil {
		return p, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if isTapName(l.Attrs().Name) {
			p.taps[l.Attrs().Name] = l
		}
	}
	return p, errors.Join(p.lookAddrs(), p.lookRoutes(), p.lookNeighbours())
}

func (p *present) lookAddrs() error {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IPNet.String() == host(gateway.LinkLocal).String() {
			p.addrs[a.LinkIndex] = true
		}
	}
	return nil
}

func (p *present) lookRoutes() error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	taps := p.indexes()
	for _, r := range routes {
		to, ok := prefix(r)
		switch {
		case !ok:
		case !taps[r.LinkIndex]:
			p.around = append(p.around, to)
		case to.IsSingleIP() && r.Src.Equal(gateway.LinkLocal.AsSlice()):
			p.routes[r.LinkIndex] = to.Addr()
		}
	}
	return nil
}

func (p *present) lookNeighbours() error {
	neighs, err := netlink.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighs {
		if addr, ok := netip.AddrFromSlice(n.IP.To4()); ok && n.State == netlink.NUD_PERMANENT {
			p.neighbours[n.LinkIndex] = neighbourEntry{addr, n.HardwareAddr.String()}
		}
	}
	return nil
}

// widest is the shortest prefix that counts as a network around the host. A shorter one without a
// router is a default route of a point-to-point link, or half of one, as VPNs set it.
const widest = 8

// prefix returns the network that a route leads to directly; false for a route by a router and for
// a default route.
func prefix(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil || r.Gw != nil || r.Via != nil || len(r.MultiPath) > 0 {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(addr, bits), ok && bits >= widest
}

// removeFlows removes guests' addresses from the connection table, so that the next VM with one of
// them inherits no open flow. A guest's flows are removed before its tap is made, since the removal
// of its predecessor may have ended early: a tap that exists has none of another VM, whatever fails
// later.
func removeFlows(addrs ...netip.Addr) error {
	if len(addrs) == 0 {
		return nil // a walk through the table is slow
	}
	err := repeated(func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, flowsOf(addrs))
		return err
	})
	if err != nil {
		return fmt.Errorf("remove connections: %w", err)
	}
	return nil
}

// flowsOf matches the flows that have one of the addresses at an end.
type flowsOf []netip.Addr

// MatchConntrackFlow implements netlink.CustomConntrackFilter. A guest's own flow has it as the
// source, masqueraded or not; one from the host has it as the destination.
func (f flowsOf) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	src, _ := netip.AddrFromSlice(flow.Forward.SrcIP) // the zero address if there is none: no guest has it
	dst, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	return slices.Contains(f, src.Unmap()) || slices.Contains(f, dst.Unmap())
}
