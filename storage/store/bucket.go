package store

import (
	"bytes"
	"errors"
	"maps"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// CreateBucket makes a bucket. A VM can have 1,000, further ones are ErrTooManyBuckets. lock enables object lock, and
// versioning with it. A bucket that exists is ErrBucketExists, and is returned with it. The history of a snapshot keeps
// that there was none: without room for that in the VM's quota it is ErrQuota.
func (s *Store) CreateBucket(vm gateway.ID, name string, lock bool) (Bucket, error) {
	if err := checkBucket(name); err != nil {
		return Bucket{}, err
	}
	if err := s.hasRoom(0); err != nil {
		return Bucket{}, err
	}
	var made Bucket
	err := s.alone(vm, name, func(x *tx) error {
		b, err := bucketOf(x.b, vm, name)
		if err == nil {
			made = *b
			return ErrBucketExists
		}
		if !errors.Is(err, ErrNoBucket) {
			return err
		}
		b, err = x.newBucket(name, lock)
		if err == nil {
			made = *b
		}
		return err
	})
	return made, err
}

// alone is commit with the bucket locked against all others; the bucket may not exist.
func (s *Store) alone(vm gateway.ID, bucket string, f func(*tx) error) error {
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	if err := a.begin(); err != nil {
		return err
	}
	defer a.commits.RUnlock()
	defer s.locks.lock(lockName(vm, bucket))()
	x := s.begin(a)
	defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
	if err := f(x); err != nil {
		return err
	}
	return x.finish()
}

// newBucket makes a bucket, if the VM has not too many.
func (x *tx) newBucket(name string, lock bool) (*Bucket, error) {
	if x.a.buckets() >= x.s.maxBuckets { // those that are made now may pass it
		return nil, ErrTooManyBuckets
	}
	return x.makeBucket(name, lock)
}

func (x *tx) makeBucket(name string, lock bool) (*Bucket, error) {
	number, err := x.s.ids.take()
	if err != nil {
		return nil, err
	}
	b := &Bucket{VM: x.a.vm, Name: name, Created: x.s.cfg.Now().UTC(), Lock: lock, number: number}
	if lock {
		b.Versioning = Enabled
	}
	return b, errors.Join(x.set(textKey(x.a.vm, kindBucket, name), nil, b.encode()), x.beginUsage(name))
}

// Bucket returns a bucket, or ErrNoBucket.
func (s *Store) Bucket(vm gateway.ID, name string) (Bucket, error) {
	b, err := bucketOf(s.index, vm, name)
	if err != nil {
		return Bucket{}, err
	}
	return *b, nil
}

// Buckets returns a VM's buckets by name, without their Config: those that begin with prefix and come behind
// after, at most most of them, and whether there are more.
func (s *Store) Buckets(vm gateway.ID, prefix, behind string, most int) ([]Bucket, bool, error) {
	start := textKey(vm, kindBucket, prefix)
	end := after(start)
	if behind != "" {
		if k := append(textKey(vm, kindBucket, behind), 0); bytes.Compare(k, start) > 0 {
			start = k
		}
	}
	it, err := s.index.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return nil, false, err
	}
	var found []Bucket
	for it.First(); it.Valid(); it.Next() {
		if len(found) >= most {
			return found, true, it.Close()
		}
		b, err := decodeBucketHead(vm, string(it.Key()[vmKeyLen+1:]), it.Value())
		if err != nil {
			return nil, false, errors.Join(err, it.Close())
		}
		found = append(found, b)
	}
	return found, false, it.Close()
}

// ConfigureBucket changes the versioning and the configuration of a bucket; change gets the bucket as it
// is, and its error is returned. What else change alters is ignored. It is possible above the quota, unless the record
// is then larger than smallConfig. Errors: ErrNoBucket, ErrTooLarge, ErrQuota, ErrFull.
func (s *Store) ConfigureBucket(vm gateway.ID, name string, change func(*Bucket) error) error {
	if err := s.hasRoom(0); err != nil {
		return err
	}
	return s.alone(vm, name, func(x *tx) error {
		b, err := bucketOf(x.b, vm, name)
		if err != nil {
			return err
		}
		old, changed := b.encode(), *b
		if changed.Config = maps.Clone(b.Config); changed.Config == nil {
			changed.Config = map[string][]byte{}
		}
		if err := change(&changed); err != nil {
			return err
		}
		b.Config = changed.Config
		if changed.Versioning != Unversioned {
			b.Versioning = changed.Versioning
		}
		if b.Lock = b.Lock || changed.Lock; b.Lock {
			b.Versioning = Enabled
		}
		record := b.encode()
		if len(record) > maxConfig {
			return ErrTooLarge
		}
		key := textKey(vm, kindBucket, name)
		// A full bucket can be closed, and cleaned by rules. What that adds counts: also with the old record in a history
		// it is hardly more than the new record.
		x.unlimited = len(record) <= smallConfig
		x.count(name, Usage{Overhead: overhead(key, record) - overhead(key, old)})
		return x.set(key, old, record)
	})
}

// DeleteBucket removes a bucket that has no object, version, delete marker or upload: else
// ErrBucketNotEmpty.
func (s *Store) DeleteBucket(vm gateway.ID, name string) error {
	return s.alone(vm, name, func(x *tx) error {
		b, err := bucketOf(x.b, vm, name)
		if err != nil {
			return err
		}
		for _, kind := range []byte{kindObject, kindVersion, kindUpload} {
			err := each(x.b, nameKey(vm, kind, b.number, ""), func([]byte, []byte) error { return ErrBucketNotEmpty })
			if err != nil {
				return err
			}
		}
		key := textKey(vm, kindBucket, name)
		if _, err := x.keep(key, b.encode()); err != nil {
			return err
		}
		x.ended, x.unlimited = name, true // a history gets what the bucket has counted
		return errors.Join(x.b.Delete(key, nil), x.b.Delete(textKey(vm, kindUsage, name), nil))
	})
}
