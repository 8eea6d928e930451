package store

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// footprint is what a VM has on disk, whoever holds it: records, uploads, checkpoints, readers. A body that several
// records share is in it once. So it has what only checkpoints hold, which no count of a bucket has.
type footprint struct {
	bytes  int64 // of all bodies, as they are stored
	values int64 // of histories
	extra  int64 // that these take beyond recordBytes each
}

func (f footprint) encode() []byte { return encodeSum(f.bytes, f.values, f.extra) }

func (f *footprint) add(d footprint) {
	f.bytes += d.bytes
	f.values += d.values
	f.extra += d.extra
}

func footprintKey(vm gateway.ID) []byte { return vmKey(vm, kindFootprint, 0) }

// merge adds a change to the record.
func (f footprint) merge(b *pebble.Batch, vm gateway.ID) error {
	if f == (footprint{}) {
		return nil
	}
	return b.Merge(footprintKey(vm), f.encode(), nil)
}

// loadFootprint reads what a VM has on disk. A store of an earlier version has no record of it: then it is counted,
// once.
func (s *Store) loadFootprint(vm gateway.ID) (footprint, error) {
	m, err := readSum(s.index, footprintKey(vm))
	if err != nil || len(m) == 3 {
		m = append(m, 0, 0, 0)
		return footprint{m[0], m[1], m[2]}, err
	}
	f, err := countFootprint(s.index, vm, s.uncounted(vm, ""))
	if err == nil && (f != (footprint{}) || len(m) > 0) {
		err = s.index.Set(footprintKey(vm), f.encode(), pebble.Sync)
	}
	return f, err
}

// countFootprint adds up what the record of the footprint should have. It goes on after an error with a record if bad
// returns nil for it.
func countFootprint(r pebble.Reader, vm gateway.ID, bad func(error) error) (f footprint, err error) {
	small := each(r, vmKey(vm, kindSmall, 0), func(_, body []byte) error {
		f.bytes += int64(len(body))
		return nil
	})
	files := each(r, vmKey(vm, kindFile, 0), func(_, v []byte) error {
		size, err := sizeOfFile(v)
		if err != nil {
			return bad(err)
		}
		f.bytes += size
		return nil
	})
	histories := each(r, vmKey(vm, kindHistory, 0), func(h, v []byte) error {
		f.extra += overhead(h, v)
		f.values++
		return nil
	})
	return f, errors.Join(small, files, histories)
}

// sizeOfFile reads the size of a file from its record, without the checksums.
func sizeOfFile(record []byte) (int64, error) {
	d := newDecoder(record)
	size := d.int()
	if d.bad {
		return 0, d.end("a file")
	}
	return size, nil
}

// sizeOf returns how many bytes a content has that is about to be destroyed.
func (s *Store) sizeOf(vm gateway.ID, c content) (int64, error) {
	if c.kind == kindList {
		return 0, nil // its parts are contents of their own
	}
	v, err := value(s.index, numKey(vm, c.kind, c.id))
	switch {
	case missing(err):
		return 0, nil
	case err != nil:
		return 0, err
	case c.kind == kindSmall:
		return int64(len(v)), nil
	}
	return sizeOfFile(v)
}

// commitDestroyed commits a batch that destroys a content of so many bytes, unless the VM was removed since its marks
// were read: nothing may be written for it then.
func (s *Store) commitDestroyed(b *pebble.Batch, vm gateway.ID, mark []byte, bytes int64, o *pebble.WriteOptions) error {
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	a.clearing.RLock()
	defer a.clearing.RUnlock()
	if _, err := value(s.index, mark); missing(err) {
		return nil
	} else if err != nil {
		return err
	}
	less := footprint{bytes: -bytes}
	if err := errors.Join(less.merge(b, vm), b.Commit(o)); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored.add(less)
	return nil
}

// held is what only checkpoints hold, their histories included. A body that is shared counts as often as buckets have
// it, so with copies it may be more. The caller has locked a.mu.
func (a *account) held(live Usage) int64 {
	if a.stored.values == 0 {
		return 0
	}
	return max(0, a.stored.bytes-live.Bytes-live.Pending) + recordBytes*a.stored.values + a.stored.extra
}

// charged is what a VM's quota is compared with, without what writes in progress have reserved: no less than is on disk.
// The caller has locked a.mu.
func (a *account) charged() int64 {
	var live Usage
	for _, u := range a.used {
		live.add(u)
	}
	return max(live.Bytes+live.Pending, a.stored.bytes) + live.Records() + recordBytes*a.stored.values + a.stored.extra
}

// Charged is what a bucket's quota is compared with.
func (u Usage) Charged() int64 { return u.Bytes + u.Pending + u.Records() }

// Records is what records count in a quota.
func (u Usage) Records() int64 { return recordBytes*u.Objects + u.Overhead }
