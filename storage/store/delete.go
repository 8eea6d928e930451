package store

import (
	"context"
	"errors"

	"lodge/gateway"
)

// Delete deletes. With a version it removes that one. Without, the latest is removed if the bucket has no
// versioning, else it gets a delete marker above it. The object returned is what was removed, or the
// marker that was made; it is zero when there was nothing to remove, which is no error. With bypass,
// a GOVERNANCE retention does not hold. Errors: ErrNoBucket, ErrLocked, ErrPrecondition, ErrNoKey (If.IfMatch),
// ErrQuota (a marker that hides nothing).
func (s *Store) Delete(ctx context.Context, key Key, id string, c Condition, bypass bool) (Object, error) {
	if err := check(key); err != nil {
		return Object{}, err
	}
	done, err := s.DeleteAll(ctx, key.VM, key.Bucket, []Deletion{{Name: key.Name, Version: id, If: c, Bypass: bypass}})
	if err != nil {
		return Object{}, err
	}
	return done[0].Object, done[0].Err
}

// DeleteAll is Delete for many, in order, with one sync. An error concerns all; others are in the
// results, of which there is one for each deletion.
func (s *Store) DeleteAll(ctx context.Context, vm gateway.ID, bucket string, what []Deletion) ([]Deleted, error) {
	done := make([]Deleted, len(what))
	names := make([]string, len(what))
	for i, d := range what {
		names[i] = d.Name
	}
	err := s.commit(target{vm: vm, bucket: bucket, names: names}, func(x *tx, b *Bucket) error {
		x.unlimited = true
		for i, d := range what {
			if err := ctx.Err(); err != nil {
				return err
			}
			done[i].Object, done[i].Err = x.deleted(b, d)
			if err := done[i].Err; err != nil && !expected(err) {
				return err // what the batch has of it is not known
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// expected reports whether an error of delete came before its first change.
func expected(err error) bool {
	for _, e := range []error{ErrName, ErrNoKey, ErrLocked, ErrPrecondition, ErrQuota} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// deleted is delete with the event.
func (x *tx) deleted(b *Bucket, d Deletion) (Object, error) {
	o, err := x.delete(b, d)
	if err != nil || o.Key.Name == "" {
		return o, err
	}
	return o, x.event(b, o, d.removal(o))
}

func (x *tx) delete(b *Bucket, d Deletion) (Object, error) {
	key := Key{x.a.vm, b.Name, d.Name}
	if err := checkName(d.Name); err != nil {
		return Object{}, err
	}
	if d.Version != "" {
		return x.deleteVersion(b, key, d)
	}
	if err := x.test(b, key, d.If); err != nil {
		return Object{}, err
	}
	if b.Versioning != Unversioned {
		return x.mark(b, key)
	}
	cur, err := x.current(b, d.Name)
	if cur == nil || err != nil {
		return Object{}, err
	}
	if err := x.s.removable(cur.version, d.Bypass); err != nil {
		return Object{}, err
	}
	return cur.Object, x.remove(b.Name, cur.key, cur.raw, cur.version)
}

// mark makes a delete marker the latest version. One that hides nothing is refused when the quota is reached: else they
// would be without end.
func (x *tx) mark(b *Bucket, key Key) (Object, error) {
	if cur, err := x.current(b, key.Name); err != nil {
		return Object{}, err
	} else if cur == nil {
		if x.markers == nil {
			x.markers = x.reservation(b.Name) // until all of them are counted
		}
		if err := x.markers.add(recordBytes); err != nil {
			return Object{}, err
		}
	}
	if err := x.displace(b, key.Name); err != nil {
		return Object{}, err
	}
	m := &version{Object: Object{Key: key, Deleted: true, Latest: true}}
	if err := x.date(b, m); err != nil {
		return Object{}, err
	}
	return m.Object, x.putOlder(b, m)
}

// deleteVersion removes a version for good.
func (x *tx) deleteVersion(b *Bucket, key Key, d Deletion) (Object, error) {
	v, err := lookup(x.b, b, key, d.Version)
	if errors.Is(err, ErrNoVersion) || errors.Is(err, ErrNoKey) {
		return Object{}, d.If.holds(nil)
	}
	if err != nil {
		return Object{}, err
	}
	if err := d.If.holds(&v.Object); err != nil {
		return Object{}, err
	}
	if d.Older && v.Latest {
		return Object{}, ErrPrecondition
	}
	if err := x.s.removable(v.version, d.Bypass); err != nil {
		return Object{}, err
	}
	if v.key[vmKeyLen] == kindVersion {
		err = x.removeOlder(b, v)
	} else {
		err = x.remove(b.Name, v.key, v.raw, v.version)
	}
	if err != nil || !v.Latest {
		return v.Object, err
	}
	return v.Object, x.promote(b, key)
}

// promote makes the newest version the latest after the one above it was removed.
func (x *tx) promote(b *Bucket, key Key) error {
	v, err := newestOlder(x.b, b, key)
	if err != nil || v == nil || v.Deleted {
		return err
	}
	if err := x.removeOlder(b, v); err != nil {
		return err
	}
	return x.put(b.Name, nameKey(x.a.vm, kindObject, b.number, key.Name), nil, v.version)
}
