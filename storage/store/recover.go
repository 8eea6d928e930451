package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// recover finishes what a crash interrupted: removals of VMs, moves out of blobs/new, garbage. It reads
// only records and files of what was in progress.
func (s *Store) recover() error {
	if err := s.finishRemovals(); err != nil {
		return fmt.Errorf("finish removal: %w", err)
	}
	if err := s.migrate(); err != nil {
		return err
	}
	vms, err := s.vms()
	if err != nil {
		return fmt.Errorf("find VMs in the index: %w", err)
	}
	if err := s.sortNew(vms); err != nil {
		return fmt.Errorf("recover new blobs: %w", err)
	}
	for _, vm := range vms {
		if err := errors.Join(s.resume(vm), s.collectAll(vm)); err != nil {
			s.log.Error("objects of a VM not recovered", "vm_id", vm.String(), "err", err) // the others are served
		}
	}
	return nil
}

// vms returns all VMs that have records, with one seek for each.
func (s *Store) vms() (found []gateway.ID, err error) {
	it, err := s.index.NewIter(&pebble.IterOptions{LowerBound: []byte{ofVM}, UpperBound: []byte{ofVM + 1}})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; {
		if len(it.Key()) < vmKeyLen {
			return nil, errors.Join(damaged("the index has a key that belongs to no VM"), it.Close())
		}
		vm := gateway.ID(it.Key()[1:vmKeyLen])
		found = append(found, vm)
		next := after(vmKey(vm, 0, 0)[:vmKeyLen])
		ok = it.SeekGE(next)
	}
	return found, it.Close()
}

// sortNew moves the committed files of blobs/new to their places, and removes the others.
func (s *Store) sortNew(vms []gateway.ID) error {
	entries, err := os.ReadDir(s.path("blobs", "new"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 16, 64)
		if err != nil {
			s.log.Warn("file in blobs/new left alone", "path", e.Name())
			continue
		}
		owner, err := s.owner(vms, id)
		if err != nil {
			return err
		}
		if owner != nil {
			s.blobs.place(*owner, id)
		} else if err := os.Remove(s.blobs.newPath(id)); err != nil {
			return err
		}
	}
	return nil
}

// owner returns the VM that has a record of a file, or nil.
func (s *Store) owner(vms []gateway.ID, id uint64) (*gateway.ID, error) {
	for _, vm := range vms {
		_, err := value(s.index, numKey(vm, kindFile, id))
		if err == nil {
			return &vm, nil
		}
		if !missing(err) {
			return nil, err
		}
	}
	return nil, nil
}

// collectAll looks at all that a VM's commits have marked.
func (s *Store) collectAll(vm gateway.ID) error {
	var marked []content
	prefix := vmKey(vm, kindGarbage, 0)
	err := each(s.index, prefix, func(key, value []byte) error {
		if len(key) != len(prefix)+16 || len(value) != 1 {
			return damaged("a mark of garbage cannot be read")
		}
		marked = append(marked, content{kind: value[0], id: binary.BigEndian.Uint64(key[len(prefix):])})
		return nil
	})
	for _, c := range marked {
		s.collect(vm, c, 0)
	}
	return err
}

// Remove removes all that a VM has stored. Calls for it that are in progress fail with ErrRemoved, and so do
// later ones. If the host crashes, Open completes it. It can be repeated.
func (s *Store) Remove(vm gateway.ID) error {
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	a.commits.Lock()
	defer a.commits.Unlock()
	return s.remove(a)
}

// remove is Remove with the VM locked.
func (s *Store) remove(a *account) error {
	a.removed = true
	b := s.index.NewBatch()
	defer func() { _ = b.Close() }() // it is committed, or nothing of it counts
	all := vmKey(a.vm, 0, 0)[:vmKeyLen]
	err := errors.Join(b.DeleteRange(all, after(all), nil), b.Set(removalKey(a.vm), nil, nil))
	if err != nil {
		return err
	}
	if err := a.cleared(func() error { return b.Commit(pebble.Sync) }); err != nil {
		return err
	}
	return s.finishRemoval(a.vm)
}

func removalKey(vm gateway.ID) []byte { return append([]byte{ofRemoval}, vm[:]...) }

func (s *Store) finishRemovals() error {
	old, err := os.ReadDir(s.path("removing"))
	for _, e := range old {
		err = errors.Join(err, os.RemoveAll(s.path("removing", e.Name())))
	}
	if err != nil {
		return err
	}
	return each(s.index, []byte{ofRemoval}, func(key, _ []byte) error {
		if len(key) != vmKeyLen {
			return damaged("the record of a removal cannot be read")
		}
		return s.finishRemoval(gateway.ID(key[1:]))
	})
}

// finishRemoval removes the files of a VM without records. The rename is synced, so that the VM's directory
// is not there again when the removal's record is gone.
func (s *Store) finishRemoval(vm gateway.ID) error {
	from, to := s.path("blobs", vm.String()), s.path("removing", vm.String())
	err := os.RemoveAll(to) // of a removal that did not end
	if err == nil {
		err = durable.Rename(from, to)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := errors.Join(durable.Sync(filepath.Dir(from)), os.RemoveAll(to)); err != nil {
		return err
	}
	return s.index.Delete(removalKey(vm), pebble.Sync)
}
