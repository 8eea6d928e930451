package netid

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// attached lists the IPv4 networks that the host reaches without a router, our taps left out.
func attached() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Attrs().Index] = strings.HasPrefix(l.Attrs().Name, "lg")
	}
	var all []netip.Prefix
	for _, r := range routes {
		if p, ok := prefix(r); ok && !ours[r.LinkIndex] {
			all = append(all, p)
		}
	}
	return all, nil
}

// widest is the shortest prefix that is taken for a network around the host. A shorter one without a router is a default
// route of a point-to-point link, or half of one, as VPNs set it.
const widest = 8

// prefix is the network that a route leads to directly; false for one by a router or for a default route.
func prefix(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil || r.Gw != nil || r.Via != nil || len(r.MultiPath) > 0 {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(addr, bits), ok && bits >= widest
}

// removeFlows removes what connection tracking remembers of guests' addresses, so that whoever gets one of them next inherits
// no open flow.
func removeFlows(addrs ...netip.Addr) error {
	if len(addrs) == 0 {
		return nil // spare the walk through the whole table
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, flowsOf(addrs)); err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	return nil
}

// flowsOf matches the flows that one of the addresses is an end of.
type flowsOf []netip.Addr

// MatchConntrackFlow implements netlink.CustomConntrackFilter. A guest's own flow has it as the source, masqueraded or
// not; one from the host has it as the destination.
func (f flowsOf) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	src, _ := netip.AddrFromSlice(flow.Forward.SrcIP) // the zero address, for none, is nobody's
	dst, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	return slices.Contains(f, src.Unmap()) || slices.Contains(f, dst.Unmap())
}
