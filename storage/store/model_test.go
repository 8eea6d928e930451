package store

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"lodge/gateway"
)

// model is what a bucket must have: of each name its versions, the newest first.
type model struct {
	t        *testing.T
	s        *Store
	bucket   string
	state    Versioning
	versions map[string][]modelVersion
	r        *rand.Rand
	writes   uint64
	vm       gateway.ID
	snaps    []modelSnapshot
	marks    int
}

var long = flag.Bool("long", false, "run TestAgainstModel with more seeds")

// modelSnapshot is what a snapshot must bring back.
type modelSnapshot struct {
	name     string
	state    Versioning
	versions map[string][]modelVersion
}

type modelVersion struct {
	id      string
	deleted bool
	body    []byte
}

var modelNames = []string{"a", "a/", "a/b", "a/c/d", "b", "b\x01", "\xff"}

// TestAgainstModel does random calls on a bucket, in each state of versioning, and compares all reads with a
// model. When all versions are deleted, nothing is left: no record, no file, no count.
func TestAgainstModel(t *testing.T) {
	seeds := uint64(2)
	if *long {
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			small := func(c *Config) { c.MinPart = 1 }
			m := &model{t: t, s: open(t, dir, small), vm: blog, bucket: "box", versions: map[string][]modelVersion{}, r: rand.New(rand.NewPCG(seed, 7))}
			for _, state := range []Versioning{Unversioned, Enabled, Suspended, Enabled} {
				m.configure(state)
				for i := range 60 {
					m.step()
					if i%20 == 10 {
						m.snapshot()
					}
				}
				m.compare()
				m.fork()
				m.goBack()
				m.compare()
				if found := checked(t, m.s); len(found) > 0 {
					t.Errorf("%s: %v", state, found)
				}
				if err := m.s.Close(); err != nil {
					t.Fatal(err)
				}
				m.s = open(t, dir, small)
				m.compare()
			}
			for _, at := range m.snaps {
				must(t, m.s.Drop(blog, at.name))
			}
			m.compare()
			m.empty()
			wantNothing(t, m.s)
			if u, err := m.s.Usage(blog); err != nil || u.Bytes != 0 || u.Objects != 0 || u.Pending != 0 {
				t.Errorf("usage %+v, %v", u, err)
			}
		})
	}
}

func (m *model) configure(state Versioning) {
	m.state = state
	if _, err := m.s.CreateBucket(blog, m.bucket, false); err != nil && !errors.Is(err, ErrBucketExists) {
		m.t.Fatal(err)
	}
	err := m.s.ConfigureBucket(blog, m.bucket, func(b *Bucket) error { b.Versioning = state; return nil })
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) key(name string) Key { return Key{m.vm, m.bucket, name} }

func (m *model) step() {
	name := modelNames[m.r.IntN(len(modelNames))]
	switch m.r.IntN(10) {
	case 0, 1, 2:
		body := m.body()
		m.wrote(put(m.t, m.s, m.key(name), body), body)
	case 3, 4:
		m.copy(modelNames[m.r.IntN(len(modelNames))], name)
	case 5, 6:
		m.multipart(name)
	case 7:
		m.delete(name)
	case 8:
		m.deleteVersion(name)
	case 9:
		m.update(name)
	}
}

func (m *model) body() []byte {
	m.writes++
	return random(m.writes, sizes[m.r.IntN(len(sizes)-1)])
}

// wrote adds what a write has returned as the latest version.
func (m *model) wrote(o Object, body []byte) {
	m.t.Helper()
	if (o.Version == NullVersion) != (m.state != Enabled) || !o.Latest || o.Size != int64(len(body)) {
		m.t.Errorf("%s: wrote %+v", m.state, o)
	}
	m.above(o.Key.Name, modelVersion{id: o.Version, body: body})
}

func (m *model) above(name string, v modelVersion) {
	old := m.versions[name]
	if v.id == NullVersion {
		old = slices.DeleteFunc(slices.Clone(old), func(v modelVersion) bool { return v.id == NullVersion })
	}
	m.versions[name] = append([]modelVersion{v}, old...)
}

func (m *model) latest(name string) *modelVersion {
	if v := m.versions[name]; len(v) > 0 && !v[0].deleted {
		return &v[0]
	}
	return nil
}

func (m *model) copy(from, to string) {
	source := m.latest(from)
	o, err := m.s.Copy(m.t.Context(), m.key(from), "", m.key(to), CopyOptions{})
	if source == nil {
		if err == nil {
			m.t.Error("copied what is not there")
		}
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.wrote(o, source.body)
}

func (m *model) multipart(name string) {
	u, err := m.s.NewUpload(m.key(name), UploadOptions{})
	if err != nil {
		m.t.Fatal(err)
	}
	var whole []byte
	var listed []CompletedPart
	for n := 1; n <= 4; n++ {
		body := m.body()
		var p Part
		var err error
		if source := m.latest("a"); m.r.IntN(3) == 0 && source != nil {
			body = source.body
			p, err = m.s.CopyPart(m.t.Context(), m.key(name), u.ID, n, m.key("a"), "", 0, -1, CopyPartOptions{})
		} else {
			p, err = m.s.PutPart(m.t.Context(), m.key(name), u.ID, n, Write{Body: bytes.NewReader(body), Size: -1})
		}
		if err != nil {
			m.t.Fatal(err)
		}
		if m.r.IntN(4) > 0 && len(body) > 0 || n == 4 {
			whole, listed = append(whole, body...), append(listed, CompletedPart{Number: n, ETag: p.ETag})
		}
	}
	if m.r.IntN(4) == 0 {
		if err := m.s.Abort(m.key(name), u.ID); err != nil {
			m.t.Error(err)
		}
		return
	}
	for range 2 { // the second time it is completed already
		o, err := m.s.Complete(m.t.Context(), m.key(name), u.ID, listed, Completion{})
		if err != nil {
			m.t.Fatal(err)
		}
		if v := m.latest(name); v == nil || v.id != o.Version || !bytes.Equal(v.body, whole) {
			m.wrote(o, whole)
		}
	}
}

func (m *model) delete(name string) {
	o, err := m.s.Delete(m.t.Context(), m.key(name), "", Condition{}, false)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.state == Unversioned {
		delete(m.versions, name)
		return
	}
	if !o.Deleted {
		m.t.Errorf("no marker: %+v", o)
	}
	m.above(name, modelVersion{id: o.Version, deleted: true})
}

func (m *model) deleteVersion(name string) {
	versions := m.versions[name]
	if len(versions) == 0 {
		return
	}
	i := m.r.IntN(len(versions))
	o, err := m.s.Delete(m.t.Context(), m.key(name), versions[i].id, Condition{}, false)
	if err != nil || o.Version != versions[i].id {
		m.t.Errorf("deleted %+v, %v", o, err)
	}
	m.versions[name] = slices.Delete(slices.Clone(versions), i, i+1)
}

func (m *model) update(name string) {
	for _, v := range m.versions[name] {
		_, err := m.s.Update(m.key(name), v.id, func(meta *Meta) error {
			meta.Tags = map[string]string{"n": fmt.Sprint(m.writes)}
			return nil
		})
		if v.deleted != errors.Is(err, ErrDeleted) || err != nil && !v.deleted {
			m.t.Errorf("update of %+v: %v", v.deleted, err)
		}
	}
}

// compare reads all versions, and lists them in pages.
func (m *model) compare() {
	m.t.Helper()
	for _, d := range checked(m.t, m.s) {
		m.t.Errorf("damage: %+v", d)
	}
	var latest, all []string
	for _, name := range modelNames {
		for i, v := range m.versions[name] {
			all = append(all, fmt.Sprintf("%s %s %v %v", name, v.id, v.deleted, i == 0))
			if v.deleted {
				_, err := m.s.Head(m.key(name), v.id)
				wantErr(m.t, err, ErrDeleted)
				continue
			}
			wantBody(m.t, m.s, m.key(name), v.id, v.body)
		}
		if v := m.latest(name); v != nil {
			latest = append(latest, name+" "+v.id)
			wantBody(m.t, m.s, m.key(name), "", v.body)
		}
	}
	var gotLatest, gotAll []string
	for _, o := range m.list(false) {
		gotLatest = append(gotLatest, o.Key.Name+" "+o.Version)
	}
	for _, o := range m.list(true) {
		gotAll = append(gotAll, fmt.Sprintf("%s %s %v %v", o.Key.Name, o.Version, o.Deleted, o.Latest))
	}
	if !slices.Equal(latest, gotLatest) {
		m.t.Errorf("listed %q, want %q", gotLatest, latest)
	}
	if !slices.Equal(all, gotAll) {
		m.t.Errorf("listed versions\n%q, want\n%q", gotAll, all)
	}
}

func (m *model) list(versions bool) (all []Object) {
	m.t.Helper()
	q := Query{VM: m.vm, Bucket: m.bucket, Max: 1 + m.r.IntN(3), Versions: versions}
	for range 10_000 {
		p, err := m.s.List(m.t.Context(), q)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, p.Objects...)
		if !p.More {
			return all
		}
		q.After, q.AfterVersion = p.Next, p.NextVersion
	}
	m.t.Fatal("the listing has no end")
	return nil
}

func (m *model) snapshot() {
	m.marks++
	name := fmt.Sprint("mark ", m.marks)
	mark(m.t, m.s, blog, name)
	m.snaps = append(m.snaps, modelSnapshot{name, m.state, maps.Clone(m.versions)})
	if i := m.r.IntN(len(m.snaps)); len(m.snaps) > 3 { // in the middle, or at an end
		must(m.t, m.s.Drop(blog, m.snaps[i].name))
		m.snaps = slices.Delete(m.snaps, i, i+1)
	}
}

// goBack restores a snapshot in steps. All snapshots stay.
func (m *model) goBack() {
	i := m.r.IntN(len(m.snaps))
	at := m.snaps[i]
	m.s.stepSize = 3
	must(m.t, m.s.Restore(blog, at.name))
	m.state, m.versions = at.state, maps.Clone(at.versions)
	if b, err := m.s.Bucket(blog, m.bucket); err != nil || b.Versioning != m.state {
		m.t.Errorf("bucket %+v, %v; want %s", b, err, m.state)
	}
}

// fork compares forks of two snapshots, and that the source is as before when they are removed.
func (m *model) fork() {
	m.snapshot()
	for i, from := range []modelSnapshot{m.snaps[m.r.IntN(len(m.snaps))], m.snaps[len(m.snaps)-1]} {
		f := *m
		f.vm = gateway.ID{9, byte(i), byte(m.writes), byte(m.writes >> 8)}
		f.versions = from.versions
		must(m.t, m.s.Fork(blog, from.name, f.vm))
		f.compare()
		put(m.t, m.s, f.key("a"), []byte("of the fork"))
		must(m.t, m.s.Fork(blog, from.name, f.vm)) // nothing is done twice
		if got, err := read(m.s, f.key("a"), ""); string(got) != "of the fork" {
			m.t.Errorf("the fork has %d bytes, %v", len(got), err)
		}
		must(m.t, m.s.Remove(f.vm))
	}
	m.compare()
}

// empty deletes all versions and the bucket.
func (m *model) empty() {
	for name, versions := range m.versions {
		for _, v := range versions {
			if _, err := m.s.Delete(m.t.Context(), m.key(name), v.id, Condition{}, false); err != nil {
				m.t.Error(err)
			}
		}
	}
	if err := m.s.DeleteBucket(blog, m.bucket); err != nil {
		m.t.Error(err)
	}
}
