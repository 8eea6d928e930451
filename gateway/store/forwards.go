package store

import (
	"context"
	"encoding/json"

	"lodge/gateway"
)

// forwardPrefix is that of the keys of Forwards in gateway.Shared: forward/<port>/<protocol>.
const forwardPrefix = "forward/"

// Forwards keeps which ports of the host lead to which VMs. A port is the key, so that it leads to
// one VM at most.
type Forwards struct{ shared gateway.Shared }

// Forwards returns the part of the store that keeps forwarded ports.
func (s *Store) Forwards() *Forwards { return &Forwards{s.shared} }

// All returns every forward, in the order of their keys.
func (f *Forwards) All(ctx context.Context) ([]gateway.Forward, error) {
	entries, _, err := f.shared.List(ctx, forwardPrefix)
	if err != nil {
		return nil, err
	}
	all := make([]gateway.Forward, len(entries))
	for i, entry := range entries {
		if err := json.Unmarshal(entry.Value, &all[i]); err != nil {
			return nil, errCorrupt
		}
	}
	return all, nil
}

// Claim records a forward. It fails with KindTaken when the host's port leads to a VM already.
func (f *Forwards) Claim(ctx context.Context, forward gateway.Forward) error {
	value, err := json.Marshal(forward)
	if err != nil {
		return err
	}
	key := forwardKey(forward.HostPort)
	_, err = f.shared.Commit(ctx, []gateway.Cond{{Key: key}}, []gateway.Op{{Key: key, Value: value}})
	if gateway.KindOf(err) == gateway.KindConflict {
		return gateway.Errorf(gateway.KindTaken, "port %s of the host is forwarded already", forward.HostPort).
			WithHint("lodge forward ls lists the forwarded ports.")
	}
	return err
}

// Release removes the forward of a port. A missing one is no error.
func (f *Forwards) Release(ctx context.Context, port gateway.HostPort) error {
	_, err := f.shared.Commit(ctx, nil, []gateway.Op{{Key: forwardKey(port), Delete: true}})
	return err
}

// ReleaseVM removes all forwards of a VM.
func (f *Forwards) ReleaseVM(ctx context.Context, vm gateway.ID) error {
	all, err := f.All(ctx)
	if err != nil {
		return err
	}
	var do []gateway.Op
	for _, forward := range all {
		if forward.VM == vm {
			do = append(do, gateway.Op{Key: forwardKey(forward.HostPort), Delete: true})
		}
	}
	return commitAll(ctx, f.shared, do)
}

func forwardKey(port gateway.HostPort) string { return forwardPrefix + port.String() }
