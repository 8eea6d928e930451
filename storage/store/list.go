package store

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// List returns a page of a bucket's objects, or of all versions. Of their Meta they have the storage class alone,
// and tags if the query asks for them. It reads what the page has and, with a delimiter, one record of each
// prefix. ErrNoBucket.
func (s *Store) List(ctx context.Context, q Query) (p Page, err error) {
	at, err := s.moment(q.VM) // all of the page is of one
	if err != nil {
		return Page{}, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	b, err := bucketOf(at, q.VM, q.Bucket)
	if err != nil {
		return Page{}, err
	}
	w, err := walkOver(ctx, at, b, q, kindObject)
	if err != nil {
		return Page{}, err
	}
	if q.Versions {
		return listVersions(at, b, q, w)
	}
	p.Prefixes, p.Next, p.More, err = w.page(func(it *pebble.Iterator) error {
		name := nameIn(it.Key())
		v, err := decodeVersionWith(Key{q.VM, q.Bucket, name}, it.Value(), w.listed)
		v.Latest = true
		p.Objects = append(p.Objects, v.Object)
		return err
	})
	return p, errors.Join(err, w.it.Close())
}

// walk goes over one kind of a bucket's records, name by name.
type walk struct {
	ctx    context.Context // of one call
	q      Query
	it     *pebble.Iterator
	prefix []byte // of all keys of this kind in the bucket
}

func walkOver(ctx context.Context, r pebble.Reader, b *Bucket, q Query, kind byte) (*walk, error) {
	if q.Max <= 0 || q.Max > maxPage {
		q.Max = maxPage
	}
	bounds := nameKey(q.VM, kind, b.number, q.Prefix)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: bounds, UpperBound: after(bounds)})
	if err != nil {
		return nil, err
	}
	return &walk{ctx: ctx, q: q, it: it, prefix: nameKey(q.VM, kind, b.number, "")}, nil
}

// listed reads the Meta of a record.
func (w *walk) listed(d *decoder) Meta { return d.listed(w.q.Tags) }

// start goes to the first record that the query selects.
func (w *walk) start() bool {
	from := w.key(w.q.From)
	if behind := w.behind(); bytes.Compare(behind, from) > 0 {
		from = behind
	}
	return w.it.SeekGE(from)
}

// behind returns the first key behind the query's After.
func (w *walk) behind() []byte {
	if w.q.After == "" {
		return nil
	}
	if folded, ok := w.fold(w.q.After); ok && folded == w.q.After {
		return after(w.key(folded))
	}
	return w.key(w.q.After + "\x01") // behind all versions of it, and before longer names: they have no NUL
}

func (w *walk) key(name string) []byte { return append(bytes.Clone(w.prefix), name...) }

func (w *walk) seek(name string) bool { return w.it.SeekGE(w.key(name)) }

// skip goes behind all names that begin with prefix.
func (w *walk) skip(prefix string) bool { return w.it.SeekGE(after(w.key(prefix))) }

// fold returns the common prefix that stands for a name, if the query has a delimiter and the name has it
// behind the query's prefix.
func (w *walk) fold(name string) (string, bool) {
	if w.q.Delimiter == "" || !strings.HasPrefix(name, w.q.Prefix) {
		return "", false
	}
	i := strings.Index(name[len(w.q.Prefix):], w.q.Delimiter)
	if i < 0 {
		return "", false
	}
	return name[:len(w.q.Prefix)+i+len(w.q.Delimiter)], true
}

func (w *walk) weigh(name string) int {
	if w.q.Weigh == nil {
		return 0
	}
	return w.q.Weigh(name)
}

// page calls add for each record of a page whose kind has one record for a name.
func (w *walk) page(add func(*pebble.Iterator) error) (prefixes []string, next string, more bool, err error) {
	n, weight := 0, 0
	for ok := w.start(); ok; n++ {
		if n == w.q.Max || w.q.Most > 0 && weight > w.q.Most {
			return prefixes, next, true, nil
		}
		if err := w.ctx.Err(); err != nil {
			return nil, "", false, err
		}
		name := nameIn(w.it.Key())
		if folded, yes := w.fold(name); yes {
			prefixes, next = append(prefixes, folded), folded
			weight += w.weigh(folded)
			ok = w.skip(folded)
			continue
		}
		if err := add(w.it); err != nil {
			return nil, "", false, err
		}
		next = name
		weight += w.weigh(name)
		ok = w.it.Next()
	}
	return prefixes, next, false, w.it.Error()
}
