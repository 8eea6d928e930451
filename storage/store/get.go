package store

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// Head returns a version of an object; "" is the latest. Errors: ErrNoBucket, ErrNoKey, ErrNoVersion. A
// delete marker is returned together with ErrDeleted.
func (s *Store) Head(key Key, id string) (Object, error) {
	v, err := s.find(key, id)
	if v == nil {
		return Object{}, err
	}
	return v.Object, err
}

func (s *Store) find(key Key, id string) (*version, error) {
	if err := check(key); err != nil {
		return nil, err
	}
	b, err := bucketOf(s.index, key.VM, key.Bucket)
	if err != nil {
		return nil, err
	}
	v, err := lookup(s.index, b, key, id)
	if err != nil {
		return nil, err
	}
	if v.Deleted {
		return v.version, ErrDeleted
	}
	return v.version, nil
}

// lookup finds a version by its id; "" is the latest.
func lookup(r pebble.Reader, b *Bucket, key Key, id string) (*stored, error) {
	at := nameKey(key.VM, kindObject, b.number, key.Name)
	raw, err := value(r, at)
	if err != nil && !missing(err) {
		return nil, err
	}
	if err == nil {
		v, err := decodeVersion(key, raw)
		if err != nil {
			return nil, err
		}
		if v.Latest = true; id == "" || id == v.Version {
			return &stored{v, at, raw}, nil
		}
	}
	if id == "" {
		return newest(r, b, key)
	}
	return older(r, b, key, id)
}

// newest finds the latest version where it is a delete marker.
func newest(r pebble.Reader, b *Bucket, key Key) (*stored, error) {
	if b.Versioning == Unversioned {
		return nil, ErrNoKey
	}
	v, err := newestOlder(r, b, key)
	if err == nil && v == nil {
		return nil, ErrNoKey
	}
	return v, err
}

var errFound = errors.New("found") // ends an iteration

// newestOlder reads the newest version that is not the latest object, or nil.
func newestOlder(r pebble.Reader, b *Bucket, key Key) (found *stored, err error) {
	prefix := append(nameKey(key.VM, kindVersion, b.number, key.Name), 0)
	err = each(r, prefix, func(at, raw []byte) error {
		v, err := decodeVersion(key, raw)
		if err != nil {
			return err
		}
		v.Latest = v.Deleted
		found = &stored{v, bytes.Clone(at), bytes.Clone(raw)}
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

// older finds a version that is not the latest object.
func older(r pebble.Reader, b *Bucket, key Key, id string) (*stored, error) {
	seq, ok := parseID(id)
	if id == NullVersion {
		var err error
		if seq, err = nullSeq(r, key.VM, b.number, key.Name); err != nil {
			return nil, err
		}
		ok = seq != 0
	}
	if !ok {
		return nil, ErrNoVersion
	}
	at := versionKey(key.VM, b.number, key.Name, seq)
	raw, err := value(r, at)
	if missing(err) {
		return nil, ErrNoVersion
	}
	if err != nil {
		return nil, err
	}
	v, err := decodeVersion(key, raw)
	if err != nil {
		return nil, err
	}
	if v.Version != id {
		return nil, ErrNoVersion // the null version by its number
	}
	if v.Deleted {
		first, err := newestOlder(r, b, key)
		if err != nil {
			return nil, err
		}
		_, err = value(r, nameKey(key.VM, kindObject, b.number, key.Name))
		if err != nil && !missing(err) {
			return nil, err
		}
		v.Latest = missing(err) && first != nil && first.seq == seq
	}
	return &stored{v, at, raw}, nil
}

// nullSeq returns the number of the null version where it is not the latest object, or 0.
func nullSeq(r pebble.Reader, vm gateway.ID, bucket uint64, name string) (uint64, error) {
	v, err := value(r, nameKey(vm, kindNull, bucket, name))
	if missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, damaged("the number of a null version cannot be read")
	}
	return decodeSeq(v), nil
}

// Get opens the body of a version. The caller closes it. Errors are those of Head; a delete marker's
// Body has its Object alone, and comes with ErrDeleted.
func (s *Store) Get(key Key, id string) (*Body, error) {
	s.garbage.finding.RLock()
	defer s.garbage.finding.RUnlock()
	v, err := s.find(key, id)
	if err != nil {
		if v != nil {
			return &Body{Object: v.Object}, err
		}
		return nil, err
	}
	for {
		body, err := s.newBody(v)
		if err == nil {
			return body, nil
		}
		again, found := s.find(key, id)
		if found != nil {
			return nil, found
		}
		if again.content == v.content {
			return nil, err
		}
		v = again // it was replaced after it was found, and its small body is gone
	}
}

func encodeSeq(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func decodeSeq(b []byte) uint64 { return binary.BigEndian.Uint64(b) }
