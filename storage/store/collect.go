package store

import (
	"bytes"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// blobKey names a content in memory.
type blobKey struct {
	vm gateway.ID
	content
}

// collector keeps files that readers and copies use from being removed.
type collector struct {
	// finding is held shared from reading a record until its content is pinned, and alone to see what has
	// neither a record nor a pin: see Store.lost.
	finding sync.RWMutex
	mu      sync.Mutex
	pins    map[blobKey]int
	dead    map[blobKey]bool // to collect when the last pin goes
}

func newCollector() collector {
	return collector{pins: map[blobKey]int{}, dead: map[blobKey]bool{}}
}

func (g *collector) pin(k blobKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pins[k]++
}

// unpin reports whether k is to be collected now.
func (g *collector) unpin(k blobKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pins[k]--; g.pins[k] > 0 {
		return false
	}
	delete(g.pins, k)
	dead := g.dead[k]
	delete(g.dead, k)
	return dead
}

// release is a content that has lost a reference, by a commit whose mark has this number.
type release struct {
	content
	seq uint64
}

// collect removes c if nothing refers to it. What it cannot do now, Open does. The mark with the number synced is
// on disk; 0 is none.
func (s *Store) collect(vm gateway.ID, c content, synced uint64) {
	if err := s.tryCollect(vm, c, synced); err != nil {
		s.log.Warn("garbage not removed", "vm_id", vm.String(), "err", err)
	}
}

// lost reports whether no record, reader or copy has c any more. The lock makes that one moment: a reader or a
// copy that found c in a record has pinned it, and after it no record leads to c. If only pins hold c, the last
// unpin collects it.
func (s *Store) lost(vm gateway.ID, c content) (bool, error) {
	g, k := &s.garbage, blobKey{vm, c}
	g.finding.Lock()
	defer g.finding.Unlock()
	if held, err := s.held(vm, c); held || err != nil {
		return false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pins[k] > 0 {
		g.dead[k] = true
		return false, nil
	}
	return true, nil
}

// held reports whether a record has c.
func (s *Store) held(vm gateway.ID, c content) (bool, error) {
	refs, err := readSum(s.index, numKey(vm, kindRefs, c.id))
	return len(refs) > 0 && refs[0] >= 0, err
}

func (s *Store) tryCollect(vm gateway.ID, c content, synced uint64) error {
	defer s.locks.lock(string(numKey(vm, kindGarbage, c.id)))()
	marks, err := s.marks(vm, c) // read before the count: a release after that has a mark and a collect of its own
	if err != nil || len(marks) == 0 {
		return err
	}
	held, err := s.held(vm, c)
	if err != nil {
		return err
	}
	if !held {
		if lost, err := s.lost(vm, c); !lost {
			return err // the marks stay, for the last unpin
		}
		if err := s.syncReleases(vm, c, synced); err != nil {
			return err
		}
	}
	b := s.index.NewBatch()
	defer func() { _ = b.Close() }() // it is committed, or nothing of it counts
	for _, m := range marks {
		if err := b.Delete(m, nil); err != nil {
			return err
		}
	}
	if held {
		return b.Commit(pebble.NoSync)
	}
	size, err := s.sizeOf(vm, c)
	if err != nil {
		return err
	}
	freed, err := s.destroy(b, vm, c)
	if err != nil {
		return err
	}
	sync := pebble.NoSync
	if len(freed) > 0 {
		sync = pebble.Sync
	}
	if err := s.commitDestroyed(b, vm, marks[0], size, sync); err != nil {
		return err
	}
	for _, f := range freed {
		s.collect(vm, f.content, f.seq)
	}
	return nil
}

// marks returns the keys of a content's marks.
func (s *Store) marks(vm gateway.ID, c content) (keys [][]byte, err error) {
	err = each(s.index, numKey(vm, kindGarbage, c.id), func(key, _ []byte) error {
		keys = append(keys, bytes.Clone(key))
		return nil
	})
	return keys, err
}

// syncReleases returns once all releases of a content without references are on disk, since the index shows a commit
// before it is. Without this, a crash could leave a record whose deletion was lost, and not the record's file. One
// mark whose commit is known to be synced needs no further sync.
func (s *Store) syncReleases(vm gateway.ID, c content, synced uint64) error {
	if c.kind != kindFile {
		return nil
	}
	marks, err := s.marks(vm, c)
	if err != nil || len(marks) == 1 && bytes.Equal(marks[0], garbageKey(vm, c.id, synced)) {
		return err
	}
	return s.index.LogData(nil, pebble.Sync)
}

// destroy removes a content without references, and returns what it referred to.
func (s *Store) destroy(b *pebble.Batch, vm gateway.ID, c content) (freed []release, err error) {
	if c.kind == kindList {
		if freed, err = s.freeList(b, vm, c); err != nil {
			return nil, err
		}
	}
	if c.kind == kindFile {
		if err := s.blobs.remove(vm, c.id); err != nil {
			return nil, err
		}
	}
	return freed, errors.Join(b.Delete(numKey(vm, c.kind, c.id), nil), b.Delete(numKey(vm, kindRefs, c.id), nil))
}

// freeList releases the parts of a multipart object.
func (s *Store) freeList(b *pebble.Batch, vm gateway.ID, c content) ([]release, error) {
	v, err := value(s.index, numKey(vm, kindList, c.id))
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parts, err := decodeList(v)
	if err != nil {
		return nil, err
	}
	var freed []release
	for _, p := range parts {
		if p.content.kind == 0 {
			continue
		}
		seq, err := s.ids.take()
		if err != nil {
			return nil, err
		}
		err = errors.Join(b.Set(garbageKey(vm, p.content.id, seq), []byte{p.content.kind}, nil),
			b.Merge(numKey(vm, kindRefs, p.content.id), encodeSum(-1), nil))
		if err != nil {
			return nil, err
		}
		freed = append(freed, release{p.content, seq})
	}
	return freed, nil
}
