package store

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// Check compares all records and files with each other, and all bodies with their checksums. It reports each
// damage. Its error is why it could not go on. Calls may go on meanwhile.
func (s *Store) Check(ctx context.Context, tell func(Damage)) error {
	return s.check(ctx, tell, func() error { return ctx.Err() })
}

// CheckVM is Check for one VM. Files that no record has are not looked for.
func (s *Store) CheckVM(ctx context.Context, vm gateway.ID, tell func(Damage)) error {
	return s.checkVM(vm, tell, func() error { return ctx.Err() })
}

// check calls pause before each body and each MiB of one.
func (s *Store) check(ctx context.Context, tell func(Damage), pause func() error) error {
	vms, err := s.vms()
	if err != nil {
		return err
	}
	for _, vm := range vms {
		if err := s.checkVM(vm, tell, pause); err != nil {
			return err
		}
	}
	return errors.Join(s.checkFiles(tell), ctx.Err())
}

func (s *Store) checkVM(vm gateway.ID, tell func(Damage), pause func() error) error {
	at := s.index.NewSnapshot()
	defer func() { _ = at.Close() }() // it was only read
	c := &checker{s: s, at: at, vm: vm, tell: tell, pause: pause, holders: map[content]int{}}
	buckets := map[string]bool{}
	prefix := vmKey(vm, kindBucket, 0)
	err := each(at, prefix, func(key, v []byte) error {
		name := string(key[len(prefix):])
		b, err := decodeBucket(vm, name, v)
		if err != nil {
			c.damage(Damage{Bucket: name, Err: err})
			return nil
		}
		buckets[name] = true
		return c.bucket(b)
	})
	if err != nil {
		return err
	}
	if err := c.parts(); err != nil {
		return err
	}
	if err := c.history(); err != nil {
		return err
	}
	return errors.Join(c.events(), c.references(), c.footprint())
}

// checker checks one VM at one point in time.
type checker struct {
	s       *Store
	at      *pebble.Snapshot
	vm      gateway.ID
	tell    func(Damage)
	pause   func() error
	holders map[content]int // of files and lists: how many records have them
}

func (c *checker) damage(d Damage) {
	d.VM = c.vm
	c.tell(d)
}

// bucket checks the objects of a bucket, and its usage.
func (c *checker) bucket(b Bucket) error {
	var u Usage
	for _, kind := range []byte{kindObject, kindVersion} {
		err := each(c.at, nameKey(c.vm, kind, b.number, ""), func(key, raw []byte) error {
			name := nameIn(key)
			if kind == kindVersion {
				name, _, _ = seqIn(key)
			}
			v, err := decodeVersion(Key{c.vm, b.Name, name}, raw)
			if err != nil {
				c.damage(Damage{Bucket: b.Name, Name: name, Err: err})
				return nil
			}
			u.add(Usage{Bytes: v.Size, Objects: 1})
			return c.body(Damage{Bucket: b.Name, Name: name}, v.content, v.Size+v.extra)
		})
		if err != nil {
			return err
		}
	}
	counted, err := readSum(c.at, textKey(c.vm, kindUsage, b.Name))
	if err != nil {
		return err
	}
	if got := counted.usage(); got.Bytes != u.Bytes || got.Objects != u.Objects {
		c.damage(Damage{Bucket: b.Name, Err: damaged("the usage is counted as %d bytes in %d objects, and is %d in %d",
			got.Bytes, got.Objects, u.Bytes, u.Objects)})
	}
	return c.overhead(b, counted)
}

// overhead compares what a bucket's records count in a quota with the records. An earlier version has not counted it.
func (c *checker) overhead(b Bucket, counted sum) error {
	if len(counted) < usageNumbers {
		return nil
	}
	want, err := countOverhead(c.at, c.vm, b.Name, strict)
	if errors.Is(err, ErrDamaged) {
		return nil // it was reported
	}
	if err != nil {
		return err
	}
	if got := counted.usage().Overhead; got != want {
		c.damage(Damage{Bucket: b.Name, Err: damaged("the overhead is counted as %d bytes, and is %d: %d extra", got, want, got-want)})
	}
	return nil
}

// strict ends a count at the first error.
func strict(err error) error { return err }

// events decodes the events that wait.
func (c *checker) events() error {
	return each(c.at, vmKey(c.vm, kindEvent, 0), func(key, raw []byte) error {
		if _, err := decodeEvent(numIn(key), raw); err != nil {
			c.damage(Damage{Err: err})
		}
		return nil
	})
}

// parts checks the parts of uploads.
func (c *checker) parts() error {
	return each(c.at, vmKey(c.vm, kindPart, 0), func(_, raw []byte) error {
		p, err := decodePart(raw)
		if err != nil {
			c.damage(Damage{Err: err})
			return nil
		}
		return c.body(Damage{}, p.content, p.Size+p.extra)
	})
}

// body checks what a record holds. Files and lists are read once, for the first of their holders.
func (c *checker) body(d Damage, held content, size int64) error {
	if err := c.pause(); err != nil {
		return err
	}
	if held.kind == kindFile || held.kind == kindList {
		if c.holders[held]++; c.holders[held] > 1 {
			return nil
		}
	}
	switch held.kind {
	case kindSmall:
		d.Err = c.small(held, size)
	case kindFile:
		var stop error
		if d.Err, stop = c.file(held, size); stop != nil {
			return stop
		}
		d.Blob, _ = filepath.Rel(c.s.dir, c.s.blobs.finalPath(c.vm, held.id))
	case kindList:
		v, err := value(c.at, numKey(c.vm, kindList, held.id))
		parts, decoded := decodeList(v)
		if d.Err = err; err == nil {
			d.Err = decoded
		}
		for _, p := range parts {
			if err := c.body(Damage{Bucket: d.Bucket, Name: d.Name}, p.content, p.Size+p.extra); err != nil {
				return err
			}
		}
	}
	if missing(d.Err) {
		d.Err = damaged("the record of a body is missing")
	}
	if d.Err != nil {
		c.damage(d)
	}
	return nil
}

func (c *checker) small(held content, size int64) error {
	v, err := value(c.at, numKey(c.vm, kindSmall, held.id))
	if err != nil {
		return err
	}
	return compareSmall(held, v, size)
}

// file compares a file with its checksums. A file that was collected since the check began is no damage.
func (c *checker) file(held content, size int64) (found, stop error) {
	o, err := c.s.openFile(c.vm, held.id, size)
	if err == nil {
		for chunk := range o.crcs {
			if stop = c.pause(); stop != nil {
				break
			}
			err = errors.Join(err, o.verify(chunk, size))
		}
		err = errors.Join(err, o.f.Close())
	}
	if err != nil {
		if _, gone := value(c.s.index, numKey(c.vm, kindFile, held.id)); missing(gone) {
			if _, was := value(c.at, numKey(c.vm, kindFile, held.id)); was == nil {
				return nil, stop
			}
		}
	}
	return err, stop
}

// footprint compares the record of what the VM has on disk with that.
func (c *checker) footprint() error {
	want, err := countFootprint(c.at, c.vm, strict)
	if errors.Is(err, ErrDamaged) {
		return nil // it was reported
	}
	if err != nil {
		return err
	}
	m, err := readSum(c.at, footprintKey(c.vm))
	if err != nil {
		return err
	}
	m = append(m, 0, 0, 0)
	if got := (footprint{m[0], m[1], m[2]}); got != want {
		c.damage(Damage{Err: damaged("what is on disk is counted as %d bytes and %d values of histories, and is %d and %d",
			got.bytes, got.values, want.bytes, want.values)})
	}
	return nil
}

// references compares the counts of references with the records that hold.
func (c *checker) references() error {
	for _, kind := range []byte{kindFile, kindList} {
		err := each(c.at, vmKey(c.vm, kind, 0), func(key, _ []byte) error {
			held := content{kind: kind, id: numIn(key)}
			refs, err := readSum(c.at, numKey(c.vm, kindRefs, held.id))
			if err != nil {
				return err
			}
			counted := int64(1)
			if len(refs) > 0 {
				counted += refs[0]
			}
			if n := int64(c.holders[held]); n != counted {
				c.damage(Damage{Err: damaged("content %x has %d references, and %d are counted", held.id, n, counted)})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkFiles reports the files without a record. Those in blobs/new may be of writes in progress.
func (s *Store) checkFiles(tell func(Damage)) error {
	return filepath.WalkDir(s.path("blobs"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() && path == s.path("blobs", "new") {
			return skip(d)
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		parts := strings.Split(rel, string(filepath.Separator)) // blobs, VM, two digits, id
		id, bad := strconv.ParseUint(d.Name(), 16, 64)
		vm, unknown := gateway.ParseID(parts[min(1, len(parts)-1)])
		if bad == nil && unknown == nil && len(parts) == 4 && path == s.blobs.finalPath(vm, id) {
			if _, err := value(s.index, numKey(vm, kindFile, id)); !missing(err) {
				return err
			}
			if _, err := d.Info(); errors.Is(err, fs.ErrNotExist) {
				return nil // collected since the directory was read
			}
		}
		tell(Damage{VM: vm, Blob: rel, Err: damaged("no record has this file")})
		return nil
	})
}

func skip(d fs.DirEntry) error {
	if d != nil && d.IsDir() {
		return fs.SkipDir
	}
	return nil
}
