package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// tx is one commit: all of it is on disk after it, or nothing. Its reads see its own writes. It counts
// what records refer to: each record that it sets holds its content, each that it removes releases it.
type tx struct {
	s     *Store
	a     *account
	b     *pebble.Batch
	usage map[string]Usage // what changes, by bucket
	refs  map[content]int
	sizes map[content]int64 // of what was released
	disk  footprint         // what changes
	fresh []content         // made for this commit; the first holder is not counted
	files []uint64          // of fresh: to leave blobs/new after the commit
	dead  []release         // to look at after the commit
	ended string            // the bucket that the commit deletes

	queued    []RuleOf     // of events, whose places in the account are given back unless the commit succeeds
	covered   int64        // bytes that were reserved for the body
	markers   *reservation // for delete markers; nil without any
	unlimited bool         // possible above the quota, as a deletion is
	unsynced  bool         // losing the commit in a crash is no harm
}

// target is what a commit needs locked: a bucket, and names in it.
type target struct {
	vm     gateway.ID
	bucket string
	names  []string
	upload string // an upload whose parts may change with it, or one part of it
	part   int
	create bool // the bucket, if there is none
}

// commit calls f under the locks of a target, and commits what f has done if it returns nil.
func (s *Store) commit(to target, f func(*tx, *Bucket) error) error {
	a, err := s.account(to.vm)
	if err != nil {
		return err
	}
	if err := a.begin(); err != nil {
		return err
	}
	defer a.commits.RUnlock()
	x := s.begin(a)
	defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
	b, unlock, err := s.lockBucket(x, to)
	defer unlock()
	if err != nil {
		return err
	}
	defer s.lockNames(to)()
	err = f(x, b)
	if err == nil {
		err = x.finish()
	}
	if x.markers != nil {
		x.markers.end()
	}
	if err != nil {
		a.unqueue(x.queued)
	} else if len(x.queued) > 0 {
		s.cfg.Queued(to.vm)
	}
	return err
}

// lockNames locks what a commit changes in its bucket, always in the same order: an upload, a part, names.
// Commits of an upload's parts share it.
func (s *Store) lockNames(to target) (unlock func()) {
	var held []func()
	base := lockName(to.vm, to.bucket)
	switch upload := base + "u" + to.upload; {
	case to.part > 0:
		held = append(held, s.locks.share(upload), s.locks.lock(fmt.Sprint(upload, "\x00", to.part)))
	case to.upload != "":
		held = append(held, s.locks.lock(upload))
	}
	names := slices.Clone(to.names)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		held = append(held, s.locks.lock(base+"n"+name))
	}
	return func() {
		for _, unlock := range held {
			unlock()
		}
	}
}

// lockName names the lock of a bucket, and begins those in it. No other ends there, not even that of an empty name.
func lockName(vm gateway.ID, bucket string) string { return string(vm[:]) + bucket + "\x00" }

// lockBucket returns the bucket, shared with other commits; or alone, if the commit makes it.
func (s *Store) lockBucket(x *tx, to target) (*Bucket, func(), error) {
	unlock := s.locks.share(lockName(to.vm, to.bucket))
	b, err := bucketOf(s.index, to.vm, to.bucket)
	if !errors.Is(err, ErrNoBucket) || !to.create {
		return b, unlock, err
	}
	unlock()
	unlock = s.locks.lock(lockName(to.vm, to.bucket))
	b, err = bucketOf(s.index, to.vm, to.bucket)
	if errors.Is(err, ErrNoBucket) {
		b, err = x.newBucket(to.bucket, false)
	}
	return b, unlock, err
}

func (s *Store) begin(a *account) *tx {
	return &tx{s: s, a: a, b: s.index.NewIndexedBatch(), usage: map[string]Usage{}, refs: map[content]int{}, sizes: map[content]int64{}}
}

// set writes a record that snapshots keep. old is its present value, nil if there is none.
func (x *tx) set(key, old, value []byte) error {
	if _, err := x.keep(key, old); err != nil {
		return err
	}
	return x.b.Set(key, value, nil)
}

// put writes the record of a version.
func (x *tx) put(bucket string, key, old []byte, v *version) error {
	value := v.encode()
	if len(value) > maxMeta {
		return ErrTooLarge
	}
	x.hold(v.content)
	x.count(bucket, v.usage(key, value))
	return x.set(key, old, value)
}

// remove deletes the record of a version, whose present value is old.
func (x *tx) remove(bucket string, key, old []byte, v *version) error {
	x.count(bucket, v.usage(key, old).negative())
	kept, err := x.keep(key, old)
	if err != nil {
		return err
	}
	if !kept {
		x.release(v.content, v.Size+v.extra)
	}
	return x.b.Delete(key, nil)
}

func (x *tx) hold(c content) {
	if c.kind != 0 {
		x.refs[c]++
	}
}

// release ends the hold of a record on a content of size bytes.
func (x *tx) release(c content, size int64) {
	if c.kind != 0 {
		x.refs[c]--
		x.sizes[c] = size
	}
}

// own adds a body that was written for this commit.
func (x *tx) own(p *payload) error {
	c := p.content
	if p.room != nil {
		x.covered = p.room.bytes
	}
	if c.kind == 0 || p.shared {
		return nil
	}
	switch c.kind {
	case kindSmall:
		if err := x.b.Set(numKey(x.a.vm, kindSmall, c.id), p.small, nil); err != nil {
			return err
		}
	case kindFile:
		if err := x.b.Set(numKey(x.a.vm, kindFile, c.id), p.file.encode(), nil); err != nil {
			return err
		}
		x.files = append(x.files, c.id)
	}
	x.fresh = append(x.fresh, c)
	x.disk.bytes += p.size
	return nil
}

// beginUsage gives a bucket its record of usage: the buckets of a VM are counted by it.
func (x *tx) beginUsage(bucket string) error {
	x.count(bucket, Usage{})
	return x.b.Merge(textKey(x.a.vm, kindUsage, bucket), (&Usage{}).encode(), nil)
}

func (x *tx) count(bucket string, d Usage) {
	u := x.usage[bucket]
	u.add(d)
	x.usage[bucket] = u
}

// commit writes what is counted, and syncs. Then it moves new files to their places, and collects what
// nothing refers to any more.
func (x *tx) commit() error {
	for bucket, u := range x.usage {
		if (&u).isZero() {
			continue
		}
		if err := x.b.Merge(textKey(x.a.vm, kindUsage, bucket), u.encode(), nil); err != nil {
			return err
		}
	}
	for _, c := range x.fresh {
		x.refs[c]--
	}
	for c, n := range x.refs {
		if err := x.refer(c, n); err != nil {
			return err
		}
	}
	if err := x.disk.merge(x.b, x.a.vm); err != nil {
		return err
	}
	if err := x.s.disk.last(x.b.Len()); err != nil {
		return err
	}
	o := pebble.Sync
	if x.unsynced {
		o = pebble.NoSync
	}
	if err := x.b.Commit(o); err != nil {
		return full(err)
	}
	x.a.apply(x.usage, x.disk, x.ended)
	for _, id := range x.files {
		x.s.blobs.place(x.a.vm, id)
	}
	for _, c := range x.dead {
		x.s.collect(x.a.vm, c.content, c.seq)
	}
	return nil
}

// refer changes the count of references of c by n.
func (x *tx) refer(c content, n int) error {
	if n == 0 {
		return nil
	}
	refs := numKey(x.a.vm, kindRefs, c.id)
	if c.kind == kindSmall && n == -1 {
		if _, err := value(x.b, refs); missing(err) {
			x.disk.bytes -= x.sizes[c]
			return x.b.Delete(numKey(x.a.vm, kindSmall, c.id), nil) // the only holder is gone
		}
	}
	if n < 0 {
		seq, err := x.s.ids.take()
		if err != nil {
			return err
		}
		if err := x.b.Set(garbageKey(x.a.vm, c.id, seq), []byte{c.kind}, nil); err != nil {
			return err
		}
		x.dead = append(x.dead, release{c, seq})
	}
	return x.b.Merge(refs, encodeSum(int64(n)), nil)
}
