package store

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"lodge/gateway"
)

// The claims of VMs in gateway.Shared.
const (
	namePrefix   = "name/"   // name/<name>: the UUID of the VM that has it
	domainPrefix = "domain/" // domain/<custom domain>: the UUID of the VM that has it
	localPrefix  = "local/"  // local/<local part>: the UUID of the VM that has it as a mail alias at the domain
	addrPrefix   = "addr/"   // addr/<address>: the UUID of the VM that has it; empty while it rests
	numberKey    = "number"  // the last number that a VM got, in decimal
)

// claim gets a name, the next number and a free address for a VM, all or none. It fails with
// KindTaken when the name is in use.
func (s *Store) claim(ctx context.Context, id gateway.ID, name string) (gateway.Identity, error) {
	for {
		vm := gateway.Identity{ID: id, Name: name}
		number, still, err := s.nextNumber(ctx)
		if err != nil {
			return vm, err
		}
		vm.Number = number
		if vm.Addr, err = s.freeAddr(ctx); err != nil {
			return vm, err
		}
		nameKey, addrKey := namePrefix+name, addrPrefix+vm.Addr.String()
		_, err = s.shared.Commit(ctx, []gateway.Cond{{Key: nameKey}, {Key: addrKey}, still}, []gateway.Op{
			{Key: nameKey, Value: []byte(id.String())},
			{Key: addrKey, Value: []byte(id.String())},
			{Key: numberKey, Value: strconv.AppendUint(nil, uint64(vm.Number), 10)},
		})
		if gateway.KindOf(err) != gateway.KindConflict {
			return vm, err
		}
		_, err = s.shared.Get(ctx, nameKey)
		if err == nil {
			return vm, errTaken(name)
		}
		if gateway.KindOf(err) != gateway.KindNotFound {
			return vm, err
		} // another VM was made meanwhile, and has this number or address
	}
}

// claimKeys gets further names and domains for a VM, all or none. It fails with KindTaken when one is
// in use.
func (s *Store) claimKeys(ctx context.Context, id gateway.ID, keys []string) error {
	var still []gateway.Cond
	var do []gateway.Op
	for _, key := range keys {
		still = append(still, gateway.Cond{Key: key})
		do = append(do, gateway.Op{Key: key, Value: []byte(id.String())})
	}
	_, err := s.shared.Commit(ctx, still, do)
	if gateway.KindOf(err) != gateway.KindConflict {
		return err
	}
	for _, key := range keys {
		if _, found := s.shared.Get(ctx, key); found == nil {
			return errTakenKey(key)
		}
	}
	return err // it was released meanwhile
}

// keysOf returns the keys of a VM's name, domains and mail aliases. An alias that is a name has the key of a
// VM's name, so that no VM gets it. One that is being removed has none.
func keysOf(m gateway.VM) (keys []string) {
	if m.Desired == gateway.Removed {
		return nil
	}
	keys = append(keys, namePrefix+m.Name)
	for _, domain := range m.Domains {
		keys = append(keys, domainPrefix+domain.Name)
	}
	for _, alias := range m.Mail.Aliases {
		if local, ok := strings.CutSuffix(alias, "@"); ok {
			keys = append(keys, localPrefix+local)
		} else {
			keys = append(keys, namePrefix+alias)
		}
	}
	return keys
}

func errTakenKey(key string) error {
	if domain, ok := strings.CutPrefix(key, domainPrefix); ok {
		return gateway.Errorf(gateway.KindTaken, "%s is a domain of another VM already", domain)
	}
	if local, ok := strings.CutPrefix(key, localPrefix); ok {
		return gateway.Errorf(gateway.KindTaken, "\"%s@\" is a mail alias of another VM already", local)
	}
	return errTaken(strings.TrimPrefix(key, namePrefix))
}

func errTaken(name string) error {
	return gateway.Errorf(gateway.KindTaken, "there is a VM named %q already, or it is a mail alias of one", name)
}

// nextNumber returns the next number, and the condition that it still is.
func (s *Store) nextNumber(ctx context.Context) (uint32, gateway.Cond, error) {
	still := gateway.Cond{Key: numberKey}
	entry, err := s.shared.Get(ctx, numberKey)
	if gateway.KindOf(err) == gateway.KindNotFound {
		return 1, still, nil
	}
	if err != nil {
		return 0, still, err
	}
	still.Rev = entry.Rev
	last, err := strconv.ParseUint(string(entry.Value), 10, 32)
	if err != nil {
		return 0, still, errCorrupt
	}
	if last == math.MaxUint32 {
		return 0, still, errors.New("all 4,294,967,295 VM numbers are used up")
	}
	return uint32(last) + 1, still, nil
}

// freeAddr picks the lowest address of the guest net that is not claimed. The net's first two
// addresses and its last are left out.
func (s *Store) freeAddr(ctx context.Context) (netip.Addr, error) {
	entries, _, err := s.shared.List(ctx, addrPrefix)
	if err != nil {
		return netip.Addr{}, err
	}
	claimed := make(map[string]bool, len(entries))
	for _, entry := range entries {
		claimed[entry.Key] = true
	}
	for a := s.net.Addr().Next().Next(); s.net.Contains(a.Next()); a = a.Next() {
		if !claimed[addrPrefix+a.String()] {
			return a, nil
		}
	}
	return netip.Addr{}, gateway.Errorf(gateway.KindNoSpace, "every address of %s is in use or was until a moment ago", s.net).
		WithHint("Remove a VM and wait 15 minutes, or set a larger guest_net.")
}

// releaseStrays releases the claims that no row holds: a crash or a full disk can leave some, and
// each row that is removed leaves its own. Names, domains and local parts are free at once, addresses after
// AddressRest. The caller holds s.mu.
func (s *Store) releaseStrays(ctx context.Context) error {
	s.strays = true // until the end
	held, err := s.heldClaims(ctx)
	if err != nil {
		return err
	}
	for _, prefix := range []string{namePrefix, domainPrefix, localPrefix, addrPrefix} {
		claims, _, err := s.shared.List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, claim := range claims {
			if len(claim.Value) == 0 || held[claim.Key] == string(claim.Value) {
				continue
			}
			if err := s.release(ctx, claim, prefix == addrPrefix); err != nil {
				return err
			}
		}
	}
	s.strays = false
	return nil
}

func (s *Store) release(ctx context.Context, claim gateway.Entry, rest bool) error {
	op := gateway.Op{Key: claim.Key, Delete: true}
	if rest {
		lease, err := s.shared.Lease(ctx, AddressRest)
		if err != nil {
			return err
		}
		op = gateway.Op{Key: claim.Key, Lease: lease.ID()}
	}
	_, err := s.shared.Commit(ctx, []gateway.Cond{{Key: claim.Key, Rev: claim.Rev}}, []gateway.Op{op})
	return err
}

// heldClaims returns the keys that the VMs in the file hold, each with its VM's UUID.
func (s *Store) heldClaims(ctx context.Context) (map[string]string, error) {
	all, err := s.VMs(ctx)
	held := make(map[string]string, 2*len(all))
	for _, m := range all {
		id := m.ID.String()
		held[addrPrefix+m.Addr.String()] = id
		for _, key := range keysOf(m) {
			held[key] = id
		}
	}
	return held, err
}
