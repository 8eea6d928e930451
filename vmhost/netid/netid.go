// Package netid makes the network interface of a VM its identity.
//
// Each VM has one persistent tap, whose name follows from its number. The tap carries gateway.LinkLocal and nothing else,
// a /32 route leads to the guest's address, and a permanent neighbour entry holds its hardware address, so that no ARP
// packet decides where anything goes. One nftables ruleset (tables "inet lodge" and "arp lodge") lets in from a tap only
// what has the VM's own hardware and IPv4 address, and lets it reach only the gateway's ports and the world outside:
// never another guest, the host's other addresses, or the networks around the host. It fails closed: a tap that the
// ruleset does not know gets no packet through.
//
// The ruleset is always replaced as a whole in one transaction, from the set of VMs that Net holds. Interfaces whose
// names begin with "lg" belong to this package. It turns on net.ipv4.ip_forward, for that is how guests reach the world;
// what the host forwards for others is not its business. While any tap is up, the host itself cannot reach a
// metadata service of its own cloud at gateway.LinkLocal.
//
// This package never starts a VM, never opens a socket for guests (gateway.TapListeners does) and never asks a guest anything.
package netid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"

	"lodge/gateway"
)

// Config says what guests have and may reach. Logger is required.
type Config struct {
	Net    netip.Prefix // IPv4; all guest addresses are in it, and nothing else of the host may be
	TCP    []uint16     // ports of gateway.LinkLocal that guests reach
	UDP    []uint16
	Logger *slog.Logger
}

// Net holds the network side of all VMs. It is safe for concurrent use. It works in the network namespace of the
// process, and needs CAP_NET_ADMIN and the program nft.
type Net struct {
	config Config
	mu     sync.Mutex
	guests guests // whose packets are let through; nil until the first Apply
	broken guests // that Repair tries again
}

type guests map[gateway.ID]gateway.Identity

// New returns a Net. Apply comes first: before it, Up and Down would shut out VMs that are already running, and fail.
func New(c Config) *Net { return &Net{config: c} }

// Apply brings the host to exactly these VMs: missing taps, routes and neighbour entries are made, taps of other VMs are
// removed, and the ruleset is replaced. What is right already is left alone, so it may be called with VMs running. A VM
// that fails is shut out, the others work on, and the errors are joined. When the ruleset cannot be set, the old one
// stays in force and nothing else is changed; Up, Down and Repair then go on from these VMs.
func (n *Net) Apply(ctx context.Context, vms []gateway.Identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.guests, n.broken = guests{}, guests{}
	var errs []error
	for _, vm := range vms {
		if err := n.check(vm); err != nil {
			errs = append(errs, err)
			continue
		}
		n.guests[vm.ID] = vm
	}
	if err := n.prepare(ctx); err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, n.removeStrays(ctx, vms), n.addTaps(ctx))...)
}

// Repair puts back what others have taken away since the last Apply, Up or Down: a restart of nftables.service flushes
// every table there is. VMs that have failed are tried again. It is Apply without a list that could be out of date by
// now, and costs some milliseconds: call it every few seconds.
func (n *Net) Repair(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.guests == nil {
		return errTooEarly
	}
	maps.Copy(n.guests, n.broken)
	clear(n.broken)
	if err := n.prepare(ctx); err != nil {
		return err
	}
	return n.addTaps(ctx)
}

// prepare sets what is there once for all VMs: the ruleset before any tap, so that nothing is ever unguarded.
func (n *Net) prepare(ctx context.Context) error {
	if err := n.checkOverlap(); err != nil {
		return err
	}
	if err := n.applyRules(ctx, n.guests); err != nil {
		return err
	}
	return forward()
}

// addTaps makes the taps of all guests. One for which that fails is shut out.
func (n *Net) addTaps(ctx context.Context) error {
	var errs []error
	var fresh []netip.Addr
	for id, vm := range n.guests {
		made, err := addTap(vm)
		if err != nil {
			delete(n.guests, id)
			n.broken[id] = vm
			errs = append(errs, err)
		}
		if made {
			fresh = append(fresh, vm.Addr)
		}
	}
	if len(errs) > 0 {
		errs = append(errs, n.applyRules(ctx, n.guests))
	}
	return errors.Join(append(errs, removeFlows(fresh...))...)
}

// Up makes the VM's tap and lets its packets through, in this order. It is no error that the VM is up.
func (n *Net) Up(ctx context.Context, vm gateway.Identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.guests == nil {
		return errTooEarly
	}
	if err := errors.Join(n.check(vm), n.checkOverlap()); err != nil {
		return err
	}
	made, err := addTap(vm)
	if err != nil {
		return err
	}
	if made {
		if err := removeFlows(vm.Addr); err != nil {
			return err
		}
	}
	next := maps.Clone(n.guests)
	next[vm.ID] = vm
	if err := n.applyRules(ctx, next); err != nil {
		return err
	}
	delete(n.broken, vm.ID)
	if err := forward(); err != nil {
		return err
	}
	n.config.Logger.InfoContext(ctx, "network opened", "vm", vm.Name)
	return nil
}

// Down shuts the VM out and then removes its tap with all that hangs on it, also what the kernel remembers of its
// connections. It is no error that the VM is down.
func (n *Net) Down(ctx context.Context, vm gateway.Identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.guests == nil {
		return errTooEarly
	}
	delete(n.broken, vm.ID)
	next := maps.Clone(n.guests)
	delete(next, vm.ID)
	if err := n.applyRules(ctx, next); err != nil {
		return err
	}
	if err := delTap(vm.Tap()); err != nil {
		return err
	}
	if err := removeFlows(vm.Addr); err != nil {
		return err
	}
	n.config.Logger.InfoContext(ctx, "network closed", "vm", vm.Name)
	return nil
}

var errTooEarly = errors.New("the other VMs' networks are not set up yet")

// applyRules makes exactly these the guests whose packets pass.
func (n *Net) applyRules(ctx context.Context, next guests) error {
	around, err := attached()
	if err != nil {
		return err
	}
	if err := load(ctx, n.config.rules(next, around)); err != nil {
		return err
	}
	n.guests = next
	return nil
}

// checkOverlap refuses to share the guests' network with the host, whose own packets the ruleset would drop.
func (n *Net) checkOverlap() error {
	around, err := attached()
	if err != nil {
		return err
	}
	for _, p := range around {
		if n.config.Net.Contains(p.Addr()) && p.Bits() >= n.config.Net.Bits() {
			return gateway.Errorf(gateway.KindConflict, "this host uses %s already, a part of the guests' network %s", p, n.config.Net).
				WithHint("Set guest_net in lodge.toml to a private network that is free.")
		}
	}
	return nil
}

// check refuses a VM that could be taken for another.
func (n *Net) check(vm gateway.Identity) error {
	switch {
	case !vm.Known() || vm.Number == 0:
		return fmt.Errorf("check VM %q: it has no number", vm.Name)
	case !vm.Addr.Is4() || !n.config.Net.Contains(vm.Addr):
		return gateway.Errorf(gateway.KindConflict, "the address %s of %s is not in the guests' network %s", vm.Addr, vm.Name, n.config.Net).
			WithHint("Set guest_net back to what it was when %s was made, or remove that VM.", vm.Name)
	}
	for _, other := range n.guests {
		if other.ID != vm.ID && (other.Number == vm.Number || other.Addr == vm.Addr) {
			return fmt.Errorf("check VM %q: number %d or address %s is that of %q", vm.Name, vm.Number, vm.Addr, other.Name)
		}
	}
	return nil
}
