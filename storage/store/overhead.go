package store

import (
	"errors"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// recordBytes is what each version, delete marker, upload, part and value of a history counts in a quota beside its
// body: its record, and what the index and the file system need for it. Without that, empty objects would be free.
const recordBytes = 1 << 10

// listedBytes is what each part of a multipart object counts, for its place in the list.
const listedBytes = 128

// overhead is what a record takes beyond recordBytes: metadata may be far longer.
func overhead(key, value []byte) int64 {
	return max(0, int64(len(key)+len(value))-recordBytes)
}

// usage is what a version counts whose record is there.
func (v *version) usage(key, record []byte) Usage {
	u := Usage{Bytes: v.Size, Objects: 1, Overhead: overhead(key, record)}
	if v.content.kind == kindList {
		u.Overhead += listedBytes * int64(v.Parts)
	}
	return u
}

// usage is what an upload counts without its parts.
func (u *Upload) usage() Usage {
	return Usage{Uploads: 1, Overhead: recordBytes + overhead([]byte(u.Key.Name), u.encode())}
}

// usage is what a part counts.
func (p *part) usage() Usage { return Usage{Pending: p.Size, Overhead: recordBytes} }

func (u *Usage) isZero() bool {
	return u.Bytes == 0 && u.Objects == 0 && u.Pending == 0 && u.Uploads == 0 && u.Overhead == 0
}

func (u Usage) negative() Usage {
	return Usage{Bytes: -u.Bytes, Objects: -u.Objects, Pending: -u.Pending, Uploads: -u.Uploads, Overhead: -u.Overhead}
}

// loadUsage reads what a VM's buckets have. A store of an earlier version has not counted the overhead: then it is
// counted, once. What is damaged counts nothing then, and stays readable as far as it is not.
func (s *Store) loadUsage(a *account) error {
	prefix := vmKey(a.vm, kindUsage, 0)
	return each(s.index, prefix, func(key, value []byte) error {
		var m sum
		if err := m.MergeNewer(value); err != nil {
			return err
		}
		name := string(key[len(prefix):])
		u := m.usage()
		if len(m) < usageNumbers {
			counted, err := countOverhead(s.index, a.vm, name, s.uncounted(a.vm, name))
			if err != nil {
				return err
			}
			u.Overhead = counted
			if err := s.index.Merge(textKey(a.vm, kindUsage, name), (&Usage{Overhead: counted}).encode(), pebble.Sync); err != nil {
				return err
			}
		}
		a.used[name] = u
		return nil
	})
}

// uncounted logs what is damaged, and so counts nothing. It returns other errors.
func (s *Store) uncounted(vm gateway.ID, bucket string) func(error) error {
	return func(err error) error {
		if !errors.Is(err, ErrDamaged) {
			return err
		}
		s.log.Error("damaged record not counted in the quota", slog.String("vm_id", vm.String()), slog.String("bucket", bucket), slog.Any("err", err))
		return nil
	}
}

// countOverhead adds up what the overhead of a bucket should be. It goes on after an error with a record if bad returns
// nil for it.
func countOverhead(r pebble.Reader, vm gateway.ID, name string, bad func(error) error) (n int64, err error) {
	b, err := bucketOf(r, vm, name)
	if errors.Is(err, ErrNoBucket) {
		return 0, nil
	}
	if err != nil {
		return 0, bad(err)
	}
	n = overhead(textKey(vm, kindBucket, name), b.encode())
	for _, kind := range []byte{kindObject, kindVersion} {
		err := each(r, nameKey(vm, kind, b.number, ""), func(key, raw []byte) error {
			v, err := decodeVersion(Key{}, raw)
			if err != nil {
				return bad(err)
			}
			n += v.usage(key, raw).Overhead
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	err = each(r, nameKey(vm, kindUpload, b.number, ""), func(key, raw []byte) error {
		name, number, _ := seqIn(key)
		u, err := decodeUpload(Key{vm, b.Name, name}, number, raw)
		if err != nil {
			return bad(err)
		}
		n += u.usage().Overhead
		parts, err := uploadParts(r, u)
		if err != nil {
			return bad(err)
		}
		n += recordBytes * int64(len(parts))
		return nil
	})
	return n, err
}

// finish commits. What it adds to a bucket beyond what was reserved for its body must have room within the limits, and
// what it adds to a history within those of the VM.
func (x *tx) finish() error {
	if x.unlimited {
		return x.commit()
	}
	kept := recordBytes*x.disk.values + x.disk.extra
	for bucket, d := range x.usage {
		if more := d.Charged() - x.covered; more > 0 {
			room := x.reservation(bucket)
			if err := room.add(more); err != nil {
				return err
			}
			defer room.end()
		}
		if less := d.Records(); less < 0 { // bodies are not less: the history holds them
			kept += less
		}
	}
	if kept > 0 {
		room := x.reservation("")
		room.limits.Bucket = 0
		if err := room.add(kept); err != nil {
			return err
		}
		defer room.end()
	}
	return x.commit()
}

// reservation is room in a bucket; in none, "", it is of the VM alone.
func (x *tx) reservation(bucket string) *reservation {
	return &reservation{a: x.a, bucket: bucket, limits: x.s.cfg.Limits(x.a.vm, bucket)}
}
