package store

import (
	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// setMixed sets whether records are of two moments. It is called before the first of them changes, and after the last.
// Who sees the same number of turns before and after it found mixed to be false has seen no such record between.
func (a *account) setMixed(v bool) {
	a.turns.Add(1)
	a.mixed.Store(v)
	a.turns.Add(1)
}

// Readable waits while a restore of a VM is under way, as long as a commit does. Errors: ErrUnfinished.
func (s *Store) Readable(vm gateway.ID) error {
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	return a.readable()
}

func (a *account) readable() error {
	if !a.mixed.Load() {
		return nil
	}
	a.gate.Pass(func() bool { return true })
	if a.mixed.Load() {
		return ErrUnfinished
	}
	return nil
}

// moment returns a snapshot of the index for what reads many records of a VM: none of them is of a restore that was
// under way. It waits as Readable does. Errors: ErrUnfinished.
func (s *Store) moment(vm gateway.ID) (*pebble.Snapshot, error) {
	a, err := s.account(vm)
	if err != nil {
		return nil, err
	}
	for {
		before := a.turns.Load()
		if err := a.readable(); err != nil {
			return nil, err
		}
		at := s.index.NewSnapshot()
		if a.turns.Load() == before {
			return at, nil
		}
		if err := at.Close(); err != nil {
			return nil, err
		}
	}
}
