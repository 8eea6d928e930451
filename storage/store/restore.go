package store

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// restore gives each record that has changed since a snapshot the value that the first history from there on has
// of it. It is repeated after a crash: what it has done already is no change then.
func (s *Store) restore(a *account, at uint64) error {
	if err := s.abortAll(a); err != nil {
		return err
	}
	names, err := s.bucketNames(a.vm)
	if err != nil {
		return err
	}
	var passed []uint64
	for _, n := range a.snaps {
		if n.id < at {
			continue
		}
		if err := s.revertAll(a, names, passed, n.id); err != nil {
			return err
		}
		passed = append(passed, n.id)
	}
	if err := s.dropNewer(a, at); err != nil {
		return err
	}
	if err := s.recount(a); err != nil {
		return err
	}
	if err := s.endProgress(a); err != nil {
		return err
	}
	s.cfg.Queued(a.vm)
	return nil
}

// revertAll reverts the records that the history of a snapshot has and those of earlier ones do not.
func (s *Store) revertAll(a *account, names map[uint64]string, earlier []uint64, at uint64) error {
	x, n := s.begin(a), 0
	defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
	err := each(s.index, numKey(a.vm, kindHistory, at), func(h, v []byte) error {
		key, old, err := historyEntry(a.vm, h, v)
		if err != nil {
			return err
		}
		for _, id := range earlier {
			if _, err := value(s.index, historyKey(a.vm, id, key)); !missing(err) {
				return err
			}
		}
		if err := x.revert(names, key, old); err != nil {
			return err
		}
		if n++; n%s.stepSize > 0 {
			return nil
		}
		if err := errors.Join(x.commit(), x.b.Close()); err != nil {
			return err
		}
		x = s.begin(a)
		return nil
	})
	if err != nil {
		return err
	}
	return x.commit()
}

// revert makes a record what it was.
func (x *tx) revert(names map[uint64]string, key, old []byte) error {
	now, err := x.present(key)
	if err != nil || (now == nil) == (old == nil) && bytes.Equal(now, old) {
		return err
	}
	gone, err := heldBy(key, now)
	if err != nil {
		return err
	}
	back, err := heldBy(key, old)
	if err != nil {
		return err
	}
	kept, err := x.keep(key, now)
	if err != nil {
		return err
	}
	if !kept {
		x.release(gone.content, gone.Size+gone.extra)
	}
	x.hold(back.content)
	if kind := key[vmKeyLen]; kind == kindObject || kind == kindVersion {
		bucket := names[binary.BigEndian.Uint64(key[vmKeyLen+1:])]
		if now != nil {
			x.count(bucket, gone.usage(key, now).negative())
		}
		if old != nil {
			x.count(bucket, back.usage(key, old))
		}
	}
	if key[vmKeyLen] == kindBucket {
		x.count(string(key[vmKeyLen+1:]), Usage{Overhead: overhead(key, old) - overhead(key, now)})
	}
	if old == nil {
		return x.b.Delete(key, nil)
	}
	if key[vmKeyLen] == kindBucket && now == nil {
		if err := x.beginUsage(string(key[vmKeyLen+1:])); err != nil {
			return err
		}
	}
	return x.b.Set(key, old, nil)
}

// bucketNames returns the names of all buckets that a VM has or had in its history.
func (s *Store) bucketNames(vm gateway.ID) (map[uint64]string, error) {
	names := map[uint64]string{}
	add := func(name string, record []byte) error {
		b, err := decodeBucket(vm, name, record)
		names[b.number] = name
		return err
	}
	prefix := vmKey(vm, kindBucket, 0)
	err := each(s.index, prefix, func(key, v []byte) error { return add(string(key[len(prefix):]), v) })
	snaps := []uint64{}
	err = errors.Join(err, each(s.index, vmKey(vm, kindSnapshot, 0), func(key, _ []byte) error {
		snaps = append(snaps, numIn(key))
		return nil
	}))
	for _, n := range snaps {
		prefix := append(numKey(vm, kindHistory, n), kindBucket)
		err = errors.Join(err, each(s.index, prefix, func(key, v []byte) error {
			if len(v) == 0 || v[0] == 0 {
				return nil
			}
			return add(string(key[len(prefix):]), v[1:])
		}))
	}
	return names, err
}

// abortAll removes a VM's uploads.
func (s *Store) abortAll(a *account) error {
	return s.eachUpload(a.vm, func(b *Bucket, key Key, number uint64, _ []byte) error {
		x := s.begin(a)
		defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
		if err := x.abort(b, key, uploadID(number)); err != nil {
			return err
		}
		return x.commit()
	})
}

// recount removes the counts of buckets that are no more, and reads the others.
func (s *Store) recount(a *account) error {
	used := map[string]Usage{}
	prefix := vmKey(a.vm, kindUsage, 0)
	err := each(s.index, prefix, func(key, v []byte) error {
		name := string(key[len(prefix):])
		if _, err := bucketOf(s.index, a.vm, name); errors.Is(err, ErrNoBucket) {
			return s.index.Delete(key, pebble.NoSync)
		} else if err != nil {
			return err
		}
		var m sum
		err := m.MergeNewer(v)
		used[name] = m.usage()
		return err
	})
	a.clearing.Lock() // no collection between the read and what follows
	defer a.clearing.Unlock()
	stored, failed := s.loadFootprint(a.vm)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used, a.stored = used, stored
	return errors.Join(err, failed)
}
