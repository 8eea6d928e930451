package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// Fork gives a VM that has nothing stored what another one had at a snapshot. Both share no record; large bodies
// are hard links. It may be repeated: what has been forked from there already stays as it is. Commits of the source
// go on meanwhile. Errors: ErrNoSnapshot, ErrNotEmpty.
func (s *Store) Fork(vm gateway.ID, name string, to gateway.ID) error {
	return s.ForkWith(vm, name, to, func(*Bucket) {})
}

// ForkWith is Fork that changes the settings of each bucket's copy: the fork has never had those of
// the source.
func (s *Store) ForkWith(vm gateway.ID, name string, to gateway.ID, change func(*Bucket)) error {
	from, err := s.account(vm)
	if err != nil {
		return err
	}
	target, err := s.account(to)
	if err != nil || vm == to {
		return errors.Join(err, ErrNotEmpty)
	}
	if bytes.Compare(vm[:], to[:]) < 0 { // one order for all pairs
		from.commits.RLock()
		defer from.commits.RUnlock()
		target.commits.Lock()
		defer target.commits.Unlock()
	} else {
		target.commits.Lock()
		defer target.commits.Unlock()
		from.commits.RLock()
		defer from.commits.RUnlock()
	}
	if err := cmp.Or(from.alters(), target.alters()); err != nil {
		return err
	}
	source := append(bytes.Clone(vm[:]), name...)
	if v, err := value(s.index, vmKey(to, kindForked, 0)); err == nil && bytes.Equal(v, source) {
		return nil
	}
	id, there := from.find(name)
	if !there {
		return ErrNoSnapshot
	}
	all := vmKey(to, 0, 0)[:vmKeyLen]
	err = each(s.index, all, func(key, _ []byte) error {
		if key[vmKeyLen] == kindFootprint {
			return nil // of what was removed
		}
		return ErrNotEmpty
	})
	if err != nil {
		return err
	}
	f := &fork{s: s, from: from, to: target, change: change}
	return f.make(id, source)
}

// make makes the copy, or leaves nothing of it. The record source is written with the last of it.
func (f *fork) make(at uint64, source []byte) error {
	s, to := f.s, f.to
	f.at, f.b = s.index.NewSnapshot(), s.index.NewIndexedBatch()
	defer func() { _ = errors.Join(f.at.Close(), f.b.Close()) }() // what the batch has is committed step by step
	err := f.b.Set(vmKey(to.vm, kindProgress, 0), []byte{forking}, nil)
	if err == nil {
		err = f.run(at, source)
	}
	if err != nil {
		if failed := s.remove(to); failed != nil {
			return errors.Join(err, failed) // until it is removed, it takes no commits
		}
		to.removed = false // the fork can be made again
		return full(err)
	}
	return s.recount(to)
}

// fork copies the records of a VM.
type fork struct {
	s        *Store
	from, to *account
	change   func(*Bucket)    // of the copies
	at       *pebble.Snapshot // the source's records
	b        *pebble.Batch
}

func (f *fork) run(at uint64, source []byte) error {
	if err := f.step(0); err != nil {
		return err
	}
	for _, kind := range []byte{kindBucket, kindObject, kindVersion, kindNull} {
		err := each(f.at, vmKey(f.from.vm, kind, 0), func(key, v []byte) error {
			return f.set(key, v)
		})
		if err != nil {
			return err
		}
	}
	if err := f.goBack(at); err != nil {
		return err
	}
	if err := f.step(0); err != nil {
		return err
	}
	if err := f.contents(); err != nil {
		return err
	}
	if err := f.syncDirs(); err != nil {
		return err
	}
	err := errors.Join(f.b.Set(vmKey(f.to.vm, kindForked, 0), source, nil), f.b.Delete(vmKey(f.to.vm, kindProgress, 0), nil))
	if err != nil {
		return err
	}
	return f.step(0)
}

// goBack applies the source's histories to the copies.
func (f *fork) goBack(at uint64) error {
	for _, n := range slices.Backward(f.from.snaps) {
		if n.id < at {
			return nil
		}
		err := each(f.at, numKey(f.from.vm, kindHistory, n.id), func(h, v []byte) error {
			key, old, err := historyEntry(f.from.vm, h, v)
			if err != nil {
				return err
			}
			if key[vmKeyLen] == kindEvent {
				return nil // the fork did not make those writes
			}
			if old != nil {
				return f.set(key, old)
			}
			return errors.Join(f.b.Delete(f.ours(key), nil), f.step(4<<20))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ours returns the key of the copy of a record.
func (f *fork) ours(key []byte) []byte {
	k := bytes.Clone(key)
	copy(k[1:vmKeyLen], f.to.vm[:])
	return k
}

// set copies a record. That of a bucket is changed at once: the copy is never as open as the source.
func (f *fork) set(key, v []byte) error {
	if key[vmKeyLen] == kindBucket {
		b, err := decodeBucket(f.to.vm, string(key[vmKeyLen+1:]), v)
		if err != nil {
			return err
		}
		f.change(&b)
		v = b.encode()
	}
	return errors.Join(f.b.Set(f.ours(key), v, nil), f.step(4<<20))
}

// step commits the batch if it has more than so many bytes.
func (f *fork) step(most int) error {
	if f.b.Len() <= most {
		return nil
	}
	if err := f.b.Commit(pebble.Sync); err != nil {
		return err
	}
	err := f.b.Close()
	f.b = f.s.index.NewIndexedBatch()
	return err
}

// contents copies what the copied records hold, counts how often, and what they use.
func (f *fork) contents() error {
	names, err := f.s.bucketNames(f.to.vm)
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := bucketOf(f.s.index, f.to.vm, name)
		if err != nil {
			return err
		}
		u := Usage{Overhead: overhead(textKey(f.to.vm, kindBucket, name), b.encode())}
		if err := f.b.Merge(textKey(f.to.vm, kindUsage, name), u.encode(), nil); err != nil {
			return err
		}
	}
	for _, kind := range []byte{kindObject, kindVersion} {
		err := each(f.s.index, vmKey(f.to.vm, kind, 0), func(key, raw []byte) error {
			v, err := decodeVersion(Key{}, raw)
			if err != nil {
				return err
			}
			bucket := names[binary.BigEndian.Uint64(key[vmKeyLen+1:])]
			u := v.usage(key, raw)
			usage := f.b.Merge(textKey(f.to.vm, kindUsage, bucket), u.encode(), nil)
			return errors.Join(usage, f.content(v.content), f.step(4<<20))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// content copies one content for its first holder, and counts each further one.
func (f *fork) content(c content) error {
	if c.kind == 0 {
		return nil
	}
	at := numKey(f.to.vm, c.kind, c.id)
	if _, err := value(f.b, at); err == nil {
		return f.b.Merge(numKey(f.to.vm, kindRefs, c.id), encodeSum(1), nil)
	} else if !missing(err) {
		return err
	}
	v, err := value(f.s.index, numKey(f.from.vm, c.kind, c.id))
	if err != nil {
		return fmt.Errorf("copy content %x: %w", c.id, err)
	}
	var copied footprint
	switch c.kind {
	case kindSmall:
		copied.bytes = int64(len(v))
	case kindFile:
		record, err := decodeFile(v)
		copied.bytes = record.size
		if err == nil && len(record.crcs) == 0 {
			err = f.b.Set(numKey(f.to.vm, kindUnsealed, c.id), nil, nil)
		}
		if err = errors.Join(err, f.link(c.id)); err != nil {
			return err
		}
	case kindList:
		parts, err := decodeList(v)
		if err != nil {
			return err
		}
		for _, p := range parts {
			if err := f.content(p.content); err != nil {
				return err
			}
		}
	}
	return errors.Join(copied.merge(f.b, f.to.vm), f.b.Set(at, v, nil))
}

func (f *fork) link(id uint64) error {
	to := f.s.blobs.finalPath(f.to.vm, id)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return full(err)
	}
	err := os.Link(f.s.blobs.finalPath(f.from.vm, id), to)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Link(f.s.blobs.newPath(id), to)
	}
	return full(err)
}

// syncDirs syncs the directories with the hard links.
func (f *fork) syncDirs() error {
	dir := f.s.path("blobs", f.to.vm.String())
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = durable.Sync(path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, durable.Sync(filepath.Dir(dir)))
}
