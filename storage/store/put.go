package store

import (
	"cmp"
	"context"
)

// Put stores an object when its body has been read to the end without an error. The bucket is made in
// the same commit if there is none. What the object replaces is readable until then, and stays after an
// error. Errors: ErrName, ErrPrecondition, ErrNoKey (If.IfMatch), ErrSize, ErrDigest, ErrTooLarge, ErrLocked,
// ErrQuota, ErrFull, and those of Body.
func (s *Store) Put(ctx context.Context, key Key, w Write) (Object, error) {
	if err := check(key); err != nil {
		return Object{}, err
	}
	p, err := s.receive(ctx, key.VM, key.Bucket, w)
	if err != nil {
		return Object{}, err
	}
	v := &version{Object: Object{Key: key, Size: p.plain, ETag: p.etag, Checksum: p.sum, Meta: w.Meta}, content: p.content, extra: p.extra()}
	err = s.commit(target{vm: key.VM, bucket: key.Bucket, names: []string{key.Name}, create: true}, func(x *tx, b *Bucket) error {
		if err := x.test(b, key, w.If); err != nil {
			return err
		}
		if err := x.own(p); err != nil {
			return err
		}
		return x.created(b, v, cmp.Or(w.Event, CreatedByPut))
	})
	s.drop(p, err == nil)
	if err != nil {
		return Object{}, err
	}
	return v.Object, nil
}

// stored is a record as it is in the index.
type stored struct {
	*version
	key, raw []byte
}

// current reads the latest version of a name, or nil: it may be missing or a delete marker.
func (x *tx) current(b *Bucket, name string) (*stored, error) {
	return x.stored(nameKey(x.a.vm, kindObject, b.number, name), Key{x.a.vm, b.Name, name})
}

// stored reads a record, or nil.
func (x *tx) stored(at []byte, key Key) (*stored, error) {
	raw, err := value(x.b, at)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v, err := decodeVersion(key, raw)
	return &stored{v, at, raw}, err
}

// test checks a condition against the latest version.
func (x *tx) test(b *Bucket, key Key, c Condition) error {
	if c == (Condition{}) {
		return nil
	}
	cur, err := x.current(b, key.Name)
	if err != nil {
		return err
	}
	if cur == nil {
		return c.holds(nil)
	}
	return c.holds(&cur.Object)
}

// holds returns nil if the condition holds for an object, which is nil if there is none.
func (c Condition) holds(o *Object) error {
	if o == nil {
		if c.IfMatch != "" || c.IfSize != nil || !c.IfModified.IsZero() {
			return ErrNoKey
		}
		return nil
	}
	switch {
	case c.IfMatch != "" && c.IfMatch != "*" && c.IfMatch != o.ETag,
		c.IfNoneMatch == "*" || c.IfNoneMatch != "" && c.IfNoneMatch == o.ETag,
		c.IfSize != nil && *c.IfSize != o.Size,
		!c.IfModified.IsZero() && c.IfModified.Unix() != o.Modified.Unix():
		return ErrPrecondition
	}
	return nil
}

// write makes v the latest version of its key, and sets what follows from that.
func (x *tx) write(b *Bucket, v *version) error {
	if err := x.displace(b, v.Key.Name); err != nil {
		return err
	}
	if err := x.date(b, v); err != nil {
		return err
	}
	v.Latest = true
	at := nameKey(x.a.vm, kindObject, b.number, v.Key.Name)
	old, err := x.present(at)
	if err != nil {
		return err
	}
	return x.put(b.Name, at, old, v)
}

// date gives a new version its number and its time.
func (x *tx) date(b *Bucket, v *version) (err error) {
	v.seq, err = x.s.ids.take()
	v.Modified = x.s.cfg.Now().UTC()
	v.null, v.Version = b.Versioning != Enabled, NullVersion
	if !v.null {
		v.Version = versionID(v.seq)
	}
	return err
}

// present reads a record, nil if there is none.
func (x *tx) present(key []byte) ([]byte, error) {
	v, err := value(x.b, key)
	if missing(err) {
		return nil, nil
	}
	return v, err
}

// displace makes room for a new latest version: the present one becomes an older one, or is removed if
// the new one is the null version as well.
func (x *tx) displace(b *Bucket, name string) error {
	cur, err := x.current(b, name)
	if err != nil {
		return err
	}
	if b.Versioning == Suspended && (cur == nil || !cur.null) {
		if err := x.removeNull(b, name); err != nil {
			return err
		}
	}
	if cur == nil {
		return nil
	}
	if b.Versioning != Enabled && cur.null {
		if err := x.s.removable(cur.version, false); err != nil {
			return err
		}
		return x.remove(b.Name, cur.key, cur.raw, cur.version)
	}
	if err := x.remove(b.Name, cur.key, cur.raw, cur.version); err != nil {
		return err
	}
	return x.putOlder(b, cur.version)
}

// putOlder writes a version, or a delete marker, that has no place as the latest object.
func (x *tx) putOlder(b *Bucket, v *version) error {
	if v.null {
		at := nameKey(x.a.vm, kindNull, b.number, v.Key.Name)
		old, err := x.present(at)
		if err != nil {
			return err
		}
		if err := x.set(at, old, encodeSeq(v.seq)); err != nil {
			return err
		}
	}
	return x.put(b.Name, versionKey(x.a.vm, b.number, v.Key.Name, v.seq), nil, v)
}

// removeNull removes the null version that is not the latest object.
func (x *tx) removeNull(b *Bucket, name string) error {
	null, err := x.null(b, name)
	if err != nil || null == nil {
		return err
	}
	if err := x.s.removable(null.version, false); err != nil {
		return err
	}
	return x.removeOlder(b, null)
}

// null reads the null version that is not the latest object, or nil.
func (x *tx) null(b *Bucket, name string) (*stored, error) {
	seq, err := nullSeq(x.b, x.a.vm, b.number, name)
	if err != nil || seq == 0 {
		return nil, err
	}
	return x.stored(versionKey(x.a.vm, b.number, name, seq), Key{x.a.vm, b.Name, name})
}

// removeOlder removes a version that putOlder wrote.
func (x *tx) removeOlder(b *Bucket, v *stored) error {
	if v.null {
		at := nameKey(x.a.vm, kindNull, b.number, v.Key.Name)
		old, err := x.present(at)
		if err != nil {
			return err
		}
		if _, err := x.keep(at, old); err != nil {
			return err
		}
		if err := x.b.Delete(at, nil); err != nil {
			return err
		}
	}
	return x.remove(b.Name, v.key, v.raw, v.version)
}

// removable returns ErrLocked for a version that is retained.
func (s *Store) removable(v *version, bypass bool) error {
	retained := v.Retention.Mode != "" && v.Retention.Until.After(s.cfg.Now())
	if bypass && v.Retention.Mode == Governance {
		retained = false
	}
	if v.LegalHold || retained {
		return ErrLocked
	}
	return nil
}
