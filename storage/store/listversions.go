package store

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// listVersions returns a page of versions and delete markers. It merges two walks: that of latest objects,
// and that of all others.
func listVersions(at pebble.Reader, b *Bucket, q Query, latest *walk) (p Page, err error) {
	defer func() { err = errors.Join(err, latest.it.Close()) }()
	others, err := walkOver(latest.ctx, at, b, q, kindVersion)
	if err != nil {
		return Page{}, err
	}
	defer func() { err = errors.Join(err, others.it.Close()) }()
	m := &merged{at: at, b: b, latest: latest, others: others}
	if err := m.start(); err != nil {
		return Page{}, err
	}
	for n := 0; m.valid(); n++ {
		if n == latest.q.Max {
			p.More = true
			break
		}
		if err := latest.ctx.Err(); err != nil {
			return Page{}, err
		}
		if err := m.add(&p); err != nil {
			return Page{}, err
		}
	}
	return p, errors.Join(latest.it.Error(), others.it.Error())
}

// merged is both walks at once.
type merged struct {
	at             pebble.Reader
	b              *Bucket
	latest, others *walk
	last           string // the name before, of which something was passed
}

// start goes to the first version the query selects.
func (m *merged) start() error {
	q := m.latest.q
	if q.AfterVersion == "" || q.After == "" {
		m.latest.start()
		m.others.start()
		return nil
	}
	m.last = q.After
	m.latest.seek(q.After + "\x00")
	key := Key{q.VM, q.Bucket, q.After}
	v, err := lookup(m.at, m.b, key, q.AfterVersion)
	seq, ok := parseID(q.AfterVersion)
	switch {
	case err == nil:
		seq = v.seq
	case !errors.Is(err, ErrNoVersion) && !errors.Is(err, ErrNoKey):
		return err
	case !ok: // not a version: behind the key
		m.others.seek(q.After + "\x01")
		return nil
	}
	m.others.it.SeekGE(append(versionKey(q.VM, m.b.number, q.After, seq), 0))
	return nil
}

func (m *merged) valid() bool { return m.latest.it.Valid() || m.others.it.Valid() }

// next returns the name that comes first, and whether it is that of a latest object.
func (m *merged) next() (name string, latest bool, err error) {
	var one, two string
	if m.latest.it.Valid() {
		one = nameIn(m.latest.it.Key())
	}
	if m.others.it.Valid() {
		var ok bool
		if two, _, ok = seqIn(m.others.it.Key()); !ok {
			return "", false, damaged("the key of a version cannot be read")
		}
	}
	if two == "" || one != "" && one <= two {
		return one, true, nil
	}
	return two, false, nil
}

// add appends the next version, or the prefix that stands for it, to the page.
func (m *merged) add(p *Page) error {
	name, latest, err := m.next()
	if err != nil {
		return err
	}
	if folded, yes := m.latest.fold(name); yes {
		p.Prefixes = append(p.Prefixes, folded)
		p.Next, p.NextVersion, m.last = folded, "", name
		m.latest.skip(folded)
		m.others.skip(folded)
		return nil
	}
	it := m.others.it
	if latest {
		it = m.latest.it
	}
	v, err := decodeVersionWith(Key{m.b.VM, m.b.Name, name}, it.Value(), m.latest.listed)
	if err != nil {
		return err
	}
	v.Latest = latest || name != m.last
	p.Objects = append(p.Objects, v.Object)
	p.Next, p.NextVersion, m.last = name, v.Version, name
	it.Next()
	return nil
}
