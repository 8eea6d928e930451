package netid

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// settings are those of one interface, below /proc/sys/net. The stricter ones repeat what the
// ruleset does, in case another program flushes it.
var settings = []struct{ path, value string }{ //nolint:gochecknoglobals // a constant table
	{"ipv6/conf/%s/disable_ipv6", "1"},
	{"ipv4/conf/%s/rp_filter", "1"},      // only sources whose route leads back here: the guest's own address (RFC 3704)
	{"ipv4/conf/%s/arp_ignore", "1"},     // answer ARP for this tap's own address only
	{"ipv4/conf/%s/arp_announce", "2"},   // and ask with it as the source
	{"ipv4/conf/%s/arp_accept", "0"},     // ignore unsolicited ARP
	{"ipv4/conf/%s/arp_notify", "1"},     // announce a change of the tap's hardware address
	{"ipv4/conf/%s/proxy_arp", "0"},      // never answer for a neighbour
	{"ipv4/conf/%s/accept_local", "0"},   // drop packets from outside with a source address of the host
	{"ipv4/conf/%s/route_localnet", "0"}, // 127.0.0.0/8 is not reachable
	{"ipv4/conf/%s/accept_redirects", "0"},
	{"ipv4/conf/%s/accept_source_route", "0"},
	{"ipv4/conf/%s/send_redirects", "0"},
	{"ipv4/conf/%s/forwarding", "1"},
}

// addTap makes the VM's tap with its address, neighbour and route. It does not touch what is right
// according to have. The caller has removed the flows of a VM without a tap.
func addTap(vm gateway.Identity, have present) (index int, err error) {
	tap, err := ensureTap(vm)
	if err != nil {
		return 0, err
	}
	if err := configure(tap, vm, have); err != nil {
		return 0, fmt.Errorf("set up %s: %w", vm.Tap(), err)
	}
	return tap.Attrs().Index, nil
}

// ensureTap finds or makes the tap. It belongs to root alone: libvirt opens it as root and passes
// the descriptor to QEMU, so that no user can attach to it. The flags are those with which libvirt
// opens a tap for virtio.
func ensureTap(vm gateway.Identity) (netlink.Link, error) {
	tap, err := findTap(vm.Tap())
	if tap != nil || err != nil {
		return tap, err
	}
	fresh := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: vm.Tap()},
		Mode:      netlink.TUNTAP_MODE_TAP,
		Flags:     netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
	}
	if err := netlink.LinkAdd(fresh); err != nil {
		return nil, fmt.Errorf("make tap %s: %w", vm.Tap(), err)
	}
	tap, err = findTap(vm.Tap())
	if tap == nil && err == nil {
		err = fmt.Errorf("make tap %s: another program has removed it", vm.Tap())
	}
	return tap, err
}

// findTap returns nil when there is no such interface, and an error when it is no tap.
func findTap(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find tap %s: %w", name, err)
	}
	if t, ok := link.(*netlink.Tuntap); !ok || t.Mode != netlink.TUNTAP_MODE_TAP {
		return nil, fmt.Errorf("find tap %s: there is another interface (%s) of that name", name, link.Type())
	}
	return link, nil
}

// configure gives the tap its settings, address, neighbour and route, each after what it depends
// on.
func configure(tap netlink.Link, vm gateway.Identity, have present) error {
	for _, s := range settings {
		err := set(fmt.Sprintf(s.path, vm.Tap()), s.value)
		if noIPv6 := strings.HasPrefix(s.path, "ipv6/") && errors.Is(err, fs.ErrNotExist); err != nil && !noIPv6 {
			return err // a host without IPv6 has none to turn off
		}
	}
	if want := hostMAC(vm); tap.Attrs().HardwareAddr.String() != want.String() {
		if err := netlink.LinkSetHardwareAddr(tap, want); err != nil {
			return fmt.Errorf("set hardware address: %w", err)
		}
	}
	if tap.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(tap); err != nil {
			return fmt.Errorf("set link up: %w", err)
		}
	}
	index := tap.Attrs().Index
	if !have.addrs[index] {
		if err := netlink.AddrReplace(tap, &netlink.Addr{IPNet: host(gateway.LinkLocal)}); err != nil {
			return fmt.Errorf("set address: %w", err)
		}
	}
	if have.neighbours[index] != (neighbourEntry{vm.Addr, vm.MAC().String()}) {
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
			IP: vm.Addr.AsSlice(), HardwareAddr: vm.MAC(),
		}); err != nil {
			return fmt.Errorf("set neighbour: %w", err)
		}
	}
	if have.routes[index] != vm.Addr {
		if err := netlink.RouteReplace(&netlink.Route{
			LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: host(vm.Addr), Src: gateway.LinkLocal.AsSlice(),
		}); err != nil {
			return fmt.Errorf("set route: %w", err)
		}
	}
	return nil
}

// hostMAC is the tap's own hardware address. It is computed from the VM's number, so that the ARP
// cache of a guest stays right across a reboot of the host. It begins with 52:55, the guest's with
// 52:54.
func hostMAC(vm gateway.Identity) net.HardwareAddr {
	mac := vm.MAC()
	mac[1]++
	return mac
}

// delTap removes a tap; the kernel removes its address, route and neighbour entry.
func delTap(name string) error {
	tap, err := findTap(name)
	if tap == nil || err != nil {
		return err
	}
	if err := netlink.LinkDel(tap); err != nil && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("remove tap %s: %w", name, err)
	}
	return nil
}

// removeStrays removes the taps with names of this package that belong to none of these VMs.
func (n *Net) removeStrays(ctx context.Context, vms []gateway.Identity, have present) error {
	wanted := map[string]bool{}
	for _, vm := range vms {
		wanted[vm.Tap()] = true
	}
	var errs []error
	var gone []netip.Addr
	for name, link := range have.taps {
		if _, tap := link.(*netlink.Tuntap); !tap || wanted[name] || !ourTap.MatchString(name) {
			continue
		}
		errs = append(errs, delTap(name))
		if addr, ok := have.routes[link.Attrs().Index]; ok {
			gone = append(gone, addr)
		}
		n.config.Logger.InfoContext(ctx, "stray tap removed", "tap", name)
	}
	return errors.Join(append(errs, removeFlows(gone...))...)
}

// ourTap matches the names that gateway.Identity.Tap returns.
var ourTap = regexp.MustCompile(`^lg[0-9a-f]{8}$`)

// forward turns on IPv4 forwarding.
func forward() error { return set("ipv4/ip_forward", "1") }

// set writes a setting unless it has the value: writing is slow, and for some it has side effects.
func set(path, value string) error {
	path = "/proc/sys/net/" + path
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
