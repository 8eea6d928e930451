// Package netid makes the network interface of a VM its identity.
//
// Each VM has one persistent tap, which is named after the VM's number and has the one address
// gateway.LinkLocal. A /32 route leads to the guest's address. A permanent neighbour entry holds
// the guest's hardware address, so that no ARP packet influences where packets go. One nftables
// ruleset (tables "inet lodge" and "arp lodge") accepts from a tap only packets with the VM's own
// hardware and IPv4 address. It lets them reach only the gateway's ports and the world outside:
// never another guest, the host's other addresses, or the networks around the host. It fails
// closed: no packet passes from a tap that is not in the ruleset.
//
// The ruleset is one readable template, loaded in one transaction. Later changes add and remove
// single elements of its sets, so that the counts of the rules survive. Net replaces the ruleset
// only when another program has changed it, or when the networks around the host have changed. To
// detect that, it compares the kernel's nftables generation, and reads the kernel's notifications
// about interfaces, addresses, routes and neighbours.
//
// Interfaces whose names begin with "lg" belong to this package. It turns on net.ipv4.ip_forward,
// by which guests reach the world, and does not restrict what the host forwards for others. While
// any tap is up, the host itself cannot reach a metadata service of its own cloud at
// gateway.LinkLocal.
//
// This package never starts a VM, never opens a socket for guests (gateway.TapListeners does) and
// never sends a guest a query.
package netid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lodge/gateway"
)

// Config is the guests' network and the ports that guests reach. Logger is required.
type Config struct {
	Net    netip.Prefix // IPv4; it has all guest addresses, and must not overlap other networks of the host
	TCP    []uint16     // ports of gateway.LinkLocal that guests reach
	UDP    []uint16
	Logger *slog.Logger
}

// Net holds the network side of all VMs. It is safe for concurrent use. It works in the network
// namespace of the process, and needs CAP_NET_ADMIN and the program nft.
type Net struct {
	config Config
	mu     sync.Mutex
	guests guests // whose packets are let through; nil until the first Apply
	broken guests // that Repair tries again

	loaded  loaded         // the ruleset in the kernel
	around  []netip.Prefix // the networks around the host that the ruleset has
	index   map[string]int // interface index by tap, of those that are set up
	watch   *watch         // nil until it is needed
	changed changes        // notifications since the last comparison
	checked time.Time      // when every tap was compared last
}

type guests map[gateway.ID]gateway.Identity

// checkEvery is how often Repair compares every tap without a notification: for some settings the
// kernel sends none.
const checkEvery = 5 * time.Minute

// New returns a Net. Call Apply first: before it Up and Down fail, since they would shut out
// running VMs.
func New(c Config) *Net { return &Net{config: c, index: map[string]int{}} }

// Apply sets up exactly these VMs: it makes missing taps, routes and neighbour entries, removes the
// taps of other VMs, and sets the ruleset. It does not touch what is right already, so VMs may be
// running. A VM that fails is shut out, the others keep their network, and the errors are joined.
// When the ruleset cannot be set, the old one stays in force and nothing else changes. Up, Down and
// Repair then start from these VMs.
func (n *Net) Apply(ctx context.Context, vms []gateway.Identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	next, errs := guests{}, []error(nil)
	for _, vm := range vms {
		if err := n.check(vm, next); err != nil {
			errs = append(errs, err)
			continue
		}
		next[vm.ID] = vm
	}
	n.broken = guests{}
	have, err := n.prepare(ctx, next)
	if err != nil {
		n.guests, n.loaded = next, loaded{}
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, n.removeStrays(ctx, vms, have))
	_, err = n.addTaps(ctx, have)
	return errors.Join(append(errs, err)...)
}

// Repair restores what others have removed since the last Apply, Up or Down. A restart of
// nftables.service, for one, flushes every table. Repair also retries VMs that have failed.
// replaced are the VMs that now have another tap of the same name: sockets bound to the old one are
// dead. Call Repair every few seconds: without a change it costs a few system calls.
func (n *Net) Repair(ctx context.Context) (replaced []gateway.Identity, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.guests == nil {
		return nil, errTooEarly
	}
	if err := n.observe(); err != nil {
		return nil, err
	}
	if n.changed == (changes{}) && len(n.broken) == 0 && time.Since(n.checked) < checkEvery {
		return nil, errors.Join(n.applyRules(ctx, n.guests), forward())
	}
	next := maps.Clone(n.guests)
	maps.Copy(next, n.broken)
	have, err := n.prepare(ctx, next)
	if err != nil {
		return nil, err
	}
	clear(n.broken)
	return n.addTaps(ctx, have)
}

// observe adds to n.changed the kernel's notifications since the last call.
func (n *Net) observe() (err error) {
	if n.watch == nil {
		n.changed = everything()
		n.watch, err = newWatch()
		return err
	}
	taps := map[int]bool{}
	for _, index := range n.index {
		taps[index] = true
	}
	changed, err := n.watch.drain(taps)
	n.changed.taps = n.changed.taps || changed.taps
	n.changed.around = n.changed.around || changed.around
	return err
}

// prepare removes the flows of VMs without a tap, which may be those of others with their addresses.
// Then it sets what all VMs share: the ruleset before any tap, so that no tap is ever unguarded.
func (n *Net) prepare(ctx context.Context, next guests) (present, error) {
	have, err := n.lookAround()
	if err != nil {
		return have, err
	}
	if err := n.checkOverlap(); err != nil && !have.hasTapOf(next) {
		return have, err
	}
	have.flows = removeFlows(have.withoutTap(next)...)
	if err := n.applyRules(ctx, next); err != nil {
		return have, err
	}
	return have, forward()
}

// addTaps makes the taps of all guests. It shuts out a guest for which that fails. While the guests'
// network overlaps another, or old flows could not be removed, it makes no new tap.
func (n *Net) addTaps(ctx context.Context, have present) (replaced []gateway.Identity, err error) {
	var errs []error
	next := maps.Clone(n.guests)
	obstacle, refused := errors.Join(n.checkOverlap(), have.flows), false
	for id, vm := range n.guests {
		if obstacle != nil && have.taps[vm.Tap()] == nil {
			delete(next, id)
			n.broken[id], refused = vm, true
			continue
		}
		index, err := addTap(vm, have)
		if err != nil {
			delete(next, id)
			n.broken[id] = vm
			errs = append(errs, err)
			continue
		}
		if old, ok := n.index[vm.Tap()]; ok && old != index {
			n.config.Logger.WarnContext(ctx, "tap was replaced", "vm", vm.Name, "tap", vm.Tap())
			replaced = append(replaced, vm)
		}
		n.index[vm.Tap()] = index
	}
	if refused {
		errs = append(errs, obstacle)
	}
	if len(errs) > 0 {
		errs = append(errs, n.applyRules(ctx, next))
	}
	n.changed, n.checked = changes{}, time.Now()
	return replaced, errors.Join(errs...)
}

// Up removes old flows of the VM's address, makes its tap and lets its packets through, in this
// order. A VM that is up already is no error.
func (n *Net) Up(ctx context.Context, vm gateway.Identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.guests == nil {
		return errTooEarly
	}
	if err := errors.Join(n.check(vm, n.guests), n.observe()); err != nil {
		return err
	}
	if n.changed.around {
		if _, err := n.lookAround(); err != nil {
			return err
		}
		n.changed.around = false
	}
	if err := n.removeOldFlows(vm); err != nil {
		return err
	}
	index, err := addTap(vm, present{})
	if err != nil {
		return err
	}
	n.index[vm.Tap()] = index
	next := maps.Clone(n.guests)
	next[vm.ID] = vm
	if err := n.applyRules(ctx, next); err != nil {
		return err
	}
	delete(n.broken, vm.ID)
	if err := forward(); err != nil {
		return err
	}
	n.config.Logger.InfoContext(ctx, "network opened", "vm", vm.Name, "tap", vm.Tap())
	return nil
}

// removeOldFlows removes the flows of a VM without a tap. It fails when that may not get one.
func (n *Net) removeOldFlows(vm gateway.Identity) error {
	tap, err := findTap(vm.Tap())
	if tap != nil || err != nil {
		return err
	}
	if err := n.checkOverlap(); err != nil {
		return err
	}
	return removeFlows(vm.Addr)
}

// Down shuts the VM out, then removes its tap with its address, route and neighbour entry, and its
// entries in the connection table. A VM that is down already is no error.
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
	delete(n.index, vm.Tap())
	if err := removeFlows(vm.Addr); err != nil {
		return err
	}
	n.config.Logger.InfoContext(ctx, "network closed", "vm", vm.Name, "tap", vm.Tap())
	return nil
}

var errTooEarly = errors.New("the other VMs' networks are not set up yet")

// lookAround reads the state of all taps, and marks the ruleset for replacement when the networks
// around the host have changed.
func (n *Net) lookAround() (present, error) {
	have, err := look()
	if err == nil && !slices.Equal(have.around, n.around) {
		n.around, n.loaded = have.around, loaded{}
	}
	return have, err
}

// checkOverlap fails when the guests' network overlaps one of the host, whose own packets the
// ruleset would drop. Callers refuse only VMs without a tap then: the others may be running, and
// somebody may have added the route meanwhile.
func (n *Net) checkOverlap() error {
	for _, p := range n.around {
		if n.config.Net.Contains(p.Addr()) && p.Bits() >= n.config.Net.Bits() {
			return gateway.Errorf(gateway.KindConflict, "the host already uses %s, a part of the guests' network %s", p, n.config.Net).
				WithHint("Set guest_net in lodge.toml to a private network that is free.")
		}
	}
	return nil
}

// check refuses a VM without a number or with a wrong address, and one that shares either with
// another VM.
func (n *Net) check(vm gateway.Identity, others guests) error {
	switch {
	case !vm.Known() || vm.Number == 0:
		return fmt.Errorf("check VM %q: it has no number", vm.Name)
	case !vm.Addr.Is4() || !n.config.Net.Contains(vm.Addr):
		return gateway.Errorf(gateway.KindConflict, "the address %s of %s is not in the guests' network %s", vm.Addr, vm.Name, n.config.Net).
			WithHint("Set guest_net back to what it was when %s was made, or remove that VM.", vm.Name)
	}
	for _, other := range others {
		if other.ID != vm.ID && (other.Number == vm.Number || other.Addr == vm.Addr) {
			return fmt.Errorf("check VM %q: number %d or address %s is that of %q", vm.Name, vm.Number, vm.Addr, other.Name)
		}
	}
	return nil
}
