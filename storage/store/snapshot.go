package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// A snapshot is a number with a name. While a VM has one, the first change of a record after it writes what the record was
// to the history of the last snapshot; "not there" is such a value, too. What a record was at a snapshot is
// therefore what the first history from that snapshot on has of it, else what it is now. A value in the
// history holds its content like a record does.
//
// Restore changes records like any other commit does, so later snapshots stay, and can be restored in turn.
//
// Restore, Drop and Fork go in steps, so that a batch stays small. A record has what is in progress, and Open
// goes on with it; meanwhile the VM's commits are held back, but for those between two steps of a Drop.

// dropRoom is what must be free for a Drop to begin when the ballast is gone.
const dropRoom = 4 << 20

type snapshot struct {
	id   uint64
	name string
}

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
	n := len(x.a.snaps)
	if n == 0 {
		return false, nil
	}
	at := historyKey(x.a.vm, x.a.snaps[n-1].id, key)
	if _, err := value(x.b, at); !missing(err) {
		return false, err
	}
	kept := historyValue(old)
	x.disk.add(footprint{values: 1, extra: overhead(at, kept)})
	return true, x.b.Set(at, kept, nil)
}

// Snapshot marks this point in time of a VM's objects, and holds further commits back until release is called,
// or for hold.DefaultLimit: they wait, and fail with ErrHeld after hold.DefaultWait. Uploads in progress are not in
// it. Errors: ErrSnapshotExists, ErrUnfinished.
func (s *Store) Snapshot(vm gateway.ID, name string) (release func(), err error) {
	a, err := s.account(vm)
	if err != nil {
		return nil, err
	}
	release = a.gate.Hold(func() {
		s.log.Warn("writes were held back too long", slog.String("vm_id", vm.String()))
	})
	if err := s.snapshot(a, name); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (s *Store) snapshot(a *account, name string) error {
	a.commits.Lock()
	defer a.commits.Unlock()
	if err := a.alters(); err != nil {
		return err
	}
	if _, there := a.find(name); there {
		return ErrSnapshotExists
	}
	id, err := s.ids.take()
	if err != nil {
		return err
	}
	if err := s.index.Set(numKey(a.vm, kindSnapshot, id), []byte(name), pebble.Sync); err != nil {
		return full(err)
	}
	a.snaps = append(a.snaps, snapshot{id, name})
	return nil
}

// find returns the snapshot of a name. The caller has locked commits.
func (a *account) find(name string) (id uint64, there bool) {
	for _, n := range a.snaps {
		if n.name == name {
			return n.id, true
		}
	}
	return 0, false
}

// Snapshots returns the names of a VM's snapshots, the oldest first.
func (s *Store) Snapshots(vm gateway.ID) ([]string, error) {
	a, err := s.account(vm)
	if err != nil {
		return nil, err
	}
	a.commits.RLock()
	defer a.commits.RUnlock()
	var all []string
	for _, n := range a.snaps {
		all = append(all, n.name)
	}
	return all, nil
}

// Drop ends a snapshot, and frees what only it held. Commits go on meanwhile, and after an error, too; snapshots,
// forks and restores are ErrUnfinished until Drop has been repeated. Like a delete it may use what the disk keeps free
// for the index. Errors: ErrNoSnapshot, ErrUnfinished, ErrFull.
func (s *Store) Drop(vm gateway.ID, name string) error {
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	id, err := func() (uint64, error) {
		a.commits.Lock()
		defer a.commits.Unlock()
		return s.beginProgress(a, dropping, name)
	}()
	if err != nil {
		return err
	}
	return s.dropSnapshot(a, id)
}

// Restore makes a VM's buckets and objects what they were at a snapshot. Uploads are aborted. All snapshots stay.
// ErrFull at the start changes nothing. After an error on the way only the same call is possible until it succeeds, here
// or in Open; what else would read or change the VM's objects is ErrUnfinished. Errors: ErrNoSnapshot, ErrUnfinished,
// ErrFull.
func (s *Store) Restore(vm gateway.ID, name string) error {
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	return a.gate.While(func() error {
		a.commits.Lock()
		defer a.commits.Unlock()
		id, err := s.beginProgress(a, restoring, name)
		if err != nil {
			return err
		}
		return s.restore(a, id)
	})
}

// beginProgress records what is in progress with a snapshot from now on, unless that is so already. The caller has
// locked commits.
func (s *Store) beginProgress(a *account, what byte, name string) (id uint64, err error) {
	if a.removed {
		return 0, ErrRemoved
	}
	id, there := a.find(name)
	if !there {
		return 0, ErrNoSnapshot
	}
	record := binary.BigEndian.AppendUint64([]byte{what}, id)
	switch {
	case a.progress == nil:
		return id, s.setProgress(a, what, record)
	case !bytes.Equal(a.progress, record):
		return 0, ErrUnfinished
	}
	return id, nil
}

// setProgress records what is in progress from now on, or nothing, if the disk has no room for it: nobody could make
// room by deletions while it is in progress. What a Drop writes is about what it deletes, so it needs less.
func (s *Store) setProgress(a *account, what byte, record []byte) error {
	err := s.disk.last(dropRoom)
	if what == restoring {
		err = s.hasRoom(0)
	}
	if err != nil {
		return err
	}
	a.inProgress(record) // readers see it before records change
	if err := s.index.Set(vmKey(a.vm, kindProgress, 0), record, pebble.Sync); err != nil {
		a.progress = nil
		a.setMixed(false)
		return full(err)
	}
	return nil
}

// inProgress sets what is in progress: until endProgress.
func (a *account) inProgress(record []byte) {
	a.progress = record
	a.setMixed(!bytes.HasPrefix(record, []byte{dropping}))
}

// resume goes on with what a crash has interrupted. After an error the VM takes no commits.
func (s *Store) resume(vm gateway.ID) error {
	if _, err := value(s.index, vmKey(vm, kindProgress, 0)); missing(err) {
		return nil
	}
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	switch v := a.progress; {
	case len(v) == 1 && v[0] == forking:
		if err := s.Remove(vm); err != nil {
			return err
		}
		a.removed = false // the fork can be made again
		return nil
	case len(v) == 9 && v[0] == restoring:
		return s.restore(a, decodeSeq(v[1:]))
	case len(v) == 9 && v[0] == dropping:
		return s.dropSnapshot(a, decodeSeq(v[1:]))
	}
	return damaged("the record of what is in progress cannot be read")
}

// dropSnapshot moves a snapshot's history to the one before, as far as that has no value of a record, and releases
// the rest. Commits between two steps may add to this history, if no later snapshot is there: what they add is newer
// than what was moved, so it is released.
func (s *Store) dropSnapshot(a *account, at uint64) error {
	record := binary.BigEndian.AppendUint64([]byte{dropping}, at)
	for more := true; more; {
		var err error
		if more, err = s.dropStep(a, at, record); err != nil {
			return err
		}
	}
	return nil
}

// dropStep drops some values of a snapshot's history, or else ends the drop.
func (s *Store) dropStep(a *account, at uint64, record []byte) (more bool, err error) {
	a.commits.Lock()
	defer a.commits.Unlock()
	switch {
	case a.removed:
		return false, ErrRemoved
	case !bytes.Equal(a.progress, record): // another call has ended it, and one may have begun something else
		return false, nil
	}
	before := uint64(0)
	for _, n := range a.snaps {
		if n.id < at {
			before = n.id
		}
	}
	more, err = s.takeHistory(a, at, func(x *tx, key, old []byte) error {
		if before != 0 && !newerEvent(key, before) {
			moved := historyKey(a.vm, before, key)
			if _, err := value(x.b, moved); missing(err) {
				kept := historyValue(old)
				x.disk.add(footprint{values: 1, extra: overhead(moved, kept)})
				return x.b.Set(moved, kept, nil)
			} else if err != nil {
				return err
			}
		}
		held, err := heldBy(key, old)
		x.release(held.content, held.Size+held.extra)
		return err
	})
	if err != nil || more {
		return more, err
	}
	return false, s.endProgress(a, at)
}

// newerEvent reports whether a key is that of an event that a snapshot cannot have: a restore of it removes all those.
func newerEvent(key []byte, snapshot uint64) bool {
	return key[vmKeyLen] == kindEvent && len(key) == vmKeyLen+1+8 && numIn(key) > snapshot
}

// endProgress removes snapshots, and the record of the progress.
func (s *Store) endProgress(a *account, drop ...uint64) error {
	b := s.index.NewBatch()
	defer func() { _ = b.Close() }() // it is committed, or nothing of it counts
	for _, n := range drop {
		if err := b.Delete(numKey(a.vm, kindSnapshot, n), nil); err != nil {
			return err
		}
	}
	if err := errors.Join(b.Delete(vmKey(a.vm, kindProgress, 0), nil), b.Commit(pebble.Sync)); err != nil {
		return err
	}
	a.progress = nil
	a.setMixed(false)
	a.snaps = slices.DeleteFunc(a.snaps, func(n snapshot) bool { return slices.Contains(drop, n.id) })
	return nil
}

// historyEntry returns the key of a record and the value that a history has of it; nil if there was none.
func historyEntry(vm gateway.ID, h, v []byte) (key, old []byte, err error) {
	key = append(vmKey(vm, 0, 0)[:vmKeyLen], h[vmKeyLen+1+8:]...)
	if len(v) == 0 || len(key) <= vmKeyLen {
		return nil, nil, damaged("a value of the history cannot be read")
	}
	if v[0] == 1 {
		old = bytes.Clone(v[1:])
	}
	return key, old, nil
}

// heldBy returns the version that is in a value of the history; other records have no content.
func heldBy(key, old []byte) (*version, error) {
	if kind := key[vmKeyLen]; old == nil || kind != kindObject && kind != kindVersion {
		return &version{}, nil
	}
	return decodeVersion(Key{}, old)
}

// takeHistory takes values out of a snapshot's history, as many as one step has, and calls f for each. It reports
// whether there are more.
func (s *Store) takeHistory(a *account, at uint64, f func(x *tx, key, old []byte) error) (more bool, err error) {
	x, n := s.begin(a), 0
	defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
	err = each(s.index, numKey(a.vm, kindHistory, at), func(h, v []byte) error {
		if n++; n > s.stepSize {
			return errFound
		}
		key, old, err := historyEntry(a.vm, h, v)
		if err != nil {
			return err
		}
		x.disk.add(footprint{values: -1, extra: -overhead(h, v)})
		return errors.Join(x.b.Delete(h, nil), f(x, key, old))
	})
	if err != nil && !errors.Is(err, errFound) {
		return false, err
	}
	return n > s.stepSize, x.commit()
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
