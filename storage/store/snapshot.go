package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// A snapshot is a number. While a VM has one, the first change of a record after it writes what the record was
// to the history of the last snapshot; "not there" is such a value, too. What a record was at a snapshot is
// therefore what the first history from that snapshot on has of it, else what it is now. A value in the
// history holds its content like a record does.
//
// Restore, Drop and Fork go in steps, so that a batch stays small. A record has what is in progress, and Open
// goes on with it; meanwhile the VM's commits wait.

// What is in progress, as the first byte of a VM's kindProgress record.
const (
	restoring = 'r' // then the snapshot
	dropping  = 'd' // then the snapshot
	forking   = 'f' // the VM itself is being made
)

func historyKey(vm gateway.ID, snapshot uint64, key []byte) []byte {
	return append(numKey(vm, kindHistory, snapshot), key[vmKeyLen:]...)
}

// historyValue is a record, or that there was none.
func historyValue(old []byte) []byte {
	if old == nil {
		return []byte{0}
	}
	return append([]byte{1}, old...)
}

// keep writes the value of a record before its first change after the last snapshot to the history.
// It reports whether it did: then the history holds the record's content.
func (x *tx) keep(key, old []byte) (bool, error) {
	n := len(x.t.snaps)
	if n == 0 {
		return false, nil
	}
	at := historyKey(x.t.vm, x.t.snaps[n-1], key)
	if _, err := value(x.b, at); !missing(err) {
		return false, err
	}
	return true, x.b.Set(at, historyValue(old), nil)
}

// Snapshot marks this point in time of a VM's objects. Uploads in progress are not in it.
func (s *Store) Snapshot(vm gateway.ID) (Snapshot, error) {
	t, err := s.tenant(vm)
	if err != nil {
		return 0, err
	}
	t.commits.Lock()
	defer t.commits.Unlock()
	if err := t.refuses(); err != nil {
		return 0, err
	}
	id, err := s.ids.take()
	if err != nil {
		return 0, err
	}
	if err := s.index.Set(numKey(vm, kindSnapshot, id), nil, pebble.Sync); err != nil {
		return 0, err
	}
	t.snaps = append(t.snaps, id)
	return Snapshot(id), nil
}

// Snapshots returns a VM's snapshots, the oldest first.
func (s *Store) Snapshots(vm gateway.ID) ([]Snapshot, error) {
	t, err := s.tenant(vm)
	if err != nil {
		return nil, err
	}
	t.commits.RLock()
	defer t.commits.RUnlock()
	var all []Snapshot
	for _, n := range t.snaps {
		all = append(all, Snapshot(n))
	}
	return all, nil
}

// Drop ends a snapshot, and frees what only it held. After an error it is like Restore. Errors: ErrNoSnapshot,
// ErrUnfinished.
func (s *Store) Drop(vm gateway.ID, at Snapshot) error {
	return s.alter(vm, dropping, at, func(t *tenant) error { return s.dropSnapshot(t, uint64(at)) })
}

// Restore makes a VM's buckets and objects what they were at a snapshot. Uploads are aborted. The snapshot
// stays; later ones are dropped. After an error, only the same call is possible until it succeeds; what else
// would change the VM's objects is ErrUnfinished. Errors: ErrNoSnapshot, ErrUnfinished.
func (s *Store) Restore(vm gateway.ID, at Snapshot) error {
	return s.alter(vm, restoring, at, func(t *tenant) error { return s.restore(t, uint64(at)) })
}

// alter calls f with a VM locked against all commits, and its progress recorded. If f fails, the VM's records are
// half changed: it takes no commits until f has been repeated, here or by Open.
func (s *Store) alter(vm gateway.ID, what byte, at Snapshot, f func(*tenant) error) error {
	t, err := s.tenant(vm)
	if err != nil {
		return err
	}
	t.commits.Lock()
	defer t.commits.Unlock()
	if t.removed {
		return ErrRemoved
	}
	if !slices.Contains(t.snaps, uint64(at)) {
		return ErrNoSnapshot
	}
	record := binary.BigEndian.AppendUint64([]byte{what}, uint64(at))
	if t.progress != nil && !bytes.Equal(t.progress, record) {
		return ErrUnfinished
	}
	t.progress = record // until endProgress
	if err := s.index.Set(vmKey(vm, kindProgress, 0), record, pebble.Sync); err != nil {
		return err
	}
	return f(t)
}

// resume goes on with what a crash has interrupted.
func (s *Store) resume(vm gateway.ID) error {
	v, err := value(s.index, vmKey(vm, kindProgress, 0))
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	t, err := s.tenant(vm)
	if err != nil {
		return err
	}
	switch {
	case len(v) == 1 && v[0] == forking:
		err = s.Remove(vm)
		t.removed = false // the fork can be made again
		return err
	case len(v) == 9 && v[0] == restoring:
		return s.restore(t, decodeSeq(v[1:]))
	case len(v) == 9 && v[0] == dropping:
		return s.dropSnapshot(t, decodeSeq(v[1:]))
	}
	return damaged("the record of what is in progress cannot be read")
}

// dropSnapshot moves a snapshot's history to the one before, as far as that has no value of a record, and releases
// the rest.
func (s *Store) dropSnapshot(t *tenant, at uint64) error {
	before := uint64(0)
	for _, n := range t.snaps {
		if n < at {
			before = n
		}
	}
	err := s.eachHistory(t, at, func(x *tx, key, old []byte) error {
		if before != 0 {
			moved := historyKey(t.vm, before, key)
			if _, err := value(x.b, moved); missing(err) {
				return x.b.Set(moved, historyValue(old), nil)
			} else if err != nil {
				return err
			}
		}
		held, err := heldBy(key, old)
		x.release(held.content)
		return err
	})
	if err != nil {
		return err
	}
	return s.endProgress(t, at)
}

// endProgress removes a snapshot unless it is 0, and the record of the progress.
func (s *Store) endProgress(t *tenant, drop ...uint64) error {
	b := s.index.NewBatch()
	defer func() { _ = b.Close() }() // it is committed, or nothing of it counts
	for _, n := range drop {
		if err := b.Delete(numKey(t.vm, kindSnapshot, n), nil); err != nil {
			return err
		}
	}
	if err := errors.Join(b.Delete(vmKey(t.vm, kindProgress, 0), nil), b.Commit(pebble.Sync)); err != nil {
		return err
	}
	t.progress = nil
	t.snaps = slices.DeleteFunc(t.snaps, func(n uint64) bool { return slices.Contains(drop, n) })
	return nil
}

// heldBy returns the version that is in a value of the history; other records have no content.
func heldBy(key, old []byte) (*version, error) {
	if kind := key[vmKeyLen]; old == nil || kind != kindObject && kind != kindVersion {
		return &version{}, nil
	}
	return decodeVersion(Key{}, old)
}

// eachHistory takes all values out of a snapshot's history, and calls f for each, in batches.
func (s *Store) eachHistory(t *tenant, at uint64, f func(x *tx, key, old []byte) error) error {
	for more := true; more; {
		x := s.begin(t)
		n := 0
		err := each(s.index, numKey(t.vm, kindHistory, at), func(h, v []byte) error {
			if n++; n > s.stepSize {
				return errFound
			}
			key := append(vmKey(t.vm, 0, 0)[:vmKeyLen], h[vmKeyLen+1+8:]...)
			if len(v) == 0 || len(key) <= vmKeyLen {
				return damaged("a value of the history cannot be read")
			}
			var old []byte
			if v[0] == 1 {
				old = bytes.Clone(v[1:])
			}
			return errors.Join(x.b.Delete(h, nil), f(x, key, old))
		})
		if more = errors.Is(err, errFound); more {
			err = nil
		}
		if err == nil {
			err = x.commit()
		}
		if err = errors.Join(err, x.b.Close()); err != nil {
			return err
		}
	}
	return nil
}

// history counts what the history holds.
func (c *checker) history() error {
	return each(c.at, vmKey(c.vm, kindHistory, 0), func(h, v []byte) error {
		key := append(vmKey(c.vm, 0, 0)[:vmKeyLen], h[vmKeyLen+1+8:]...)
		if len(v) == 0 || v[0] == 0 {
			return nil
		}
		held, err := heldBy(key, v[1:])
		if err != nil {
			c.damage(Damage{Err: err})
			return nil
		}
		return c.body(Damage{}, held.content, held.Size+held.extra)
	})
}
