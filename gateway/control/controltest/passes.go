package controltest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"lodge/gateway"
)

// fakePasses are links and tokens that open nothing.
type fakePasses struct {
	mu  sync.Mutex
	all []gateway.Pass
}

// NewPass implements api.Passes.
func (f *fakePasses) NewPass(_ context.Context, p gateway.Pass) (string, gateway.Pass, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.ID = fmt.Sprintf("%016x", len(f.all)+1)
	f.all = append(f.all, p)
	return "https://" + LoginSecret, p, nil
}

// Passes implements api.Passes.
func (f *fakePasses) Passes(_ context.Context, vm gateway.ID, kind gateway.PassKind) (all []gateway.Pass, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.all {
		if p.VM == vm && p.Kind == kind {
			all = append(all, p)
		}
	}
	return all, nil
}

// RemovePass implements api.Passes.
func (f *fakePasses) RemovePass(_ context.Context, vm gateway.ID, kind gateway.PassKind, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.all {
		if p.VM == vm && p.Kind == kind && p.ID == id {
			f.all = slices.Delete(f.all, i, i+1)
			return nil
		}
	}
	return gateway.Errorf(gateway.KindNotFound, "there is no such link or token: %q", id)
}
