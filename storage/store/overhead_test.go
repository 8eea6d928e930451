package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

func quota(bytes int64) func(*Config) {
	return func(c *Config) {
		c.Limits = func(gateway.ID, string) Limits { return Limits{VM: bytes} }
	}
}

func charged(t *testing.T, s *Store) int64 {
	t.Helper()
	a, err := s.account(blog)
	must(t, err)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.charged()
}

// Delete markers that hide nothing stay within the quota, in one batch too; those that hide an object are made above it.
func TestMarkersWithinQuota(t *testing.T) {
	s := open(t, t.TempDir(), quota(20*recordBytes))
	_, err := s.CreateBucket(blog, "log", true)
	must(t, err)
	put(t, s, Key{blog, "log", "seen"}, []byte("x"))
	var all []Deletion
	for i := range 100 {
		all = append(all, Deletion{Name: fmt.Sprint(i)})
	}
	done, err := s.DeleteAll(t.Context(), blog, "log", append(all, Deletion{Name: "seen"}))
	must(t, err)
	made := 0
	for _, d := range done[:100] {
		if d.Err == nil {
			made++
		} else if !errors.Is(d.Err, ErrQuota) {
			t.Error(d.Err)
		}
	}
	if made != 18 || done[100].Err != nil {
		t.Errorf("%d markers, and %v for one that hides an object", made, done[100].Err)
	}
	if n := charged(t, s); n > 21*recordBytes {
		t.Errorf("%d bytes are charged", n)
	}
}

// What records take counts: metadata, uploads, their parts, settings, and what a history keeps of them. Without all
// that nothing is charged.
func TestRecordsAreCharged(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.MinPart = 1 })
	header := map[string]string{"x-amz-meta-a": strings.Repeat("x", 2000)}
	step := func(what string, least int64, f func()) {
		t.Helper()
		before := charged(t, s)
		f()
		if n := charged(t, s) - before; n < least || n > least+1100 {
			t.Errorf("%s: %d bytes more are charged, want %d", what, n, least)
		}
	}
	long := Key{blog, "box", strings.Repeat("k", 1000)}
	step("a long key and metadata", 3000, func() {
		_, err := s.Put(t.Context(), long, Write{Meta: Meta{Header: header}})
		must(t, err)
	})
	var u Upload
	step("an upload", 2000, func() {
		var err error
		u, err = s.NewUpload(Key{blog, "box", "u"}, UploadOptions{Meta: Meta{Header: header}})
		must(t, err)
	})
	var parts []CompletedPart
	step("20 parts", 20*recordBytes, func() {
		for i := range 20 {
			p, err := s.PutPart(t.Context(), u.Key, u.ID, i+1, Write{Body: strings.NewReader("x"), Size: 1})
			must(t, err)
			parts = append(parts, CompletedPart{Number: p.Number, ETag: p.ETag})
		}
	})
	step("completed", -20*recordBytes+20*listedBytes-1000, func() {
		_, err := s.Complete(t.Context(), u.Key, u.ID, parts, Completion{})
		must(t, err)
	})
	step("settings", 9000, func() {
		must(t, s.ConfigureBucket(blog, "box", func(b *Bucket) error { b.Config["cors"] = bytes.Repeat([]byte("x"), 10_000); return nil }))
	})
	mark(t, s, blog, "at")
	step("a history", 10_000, func() {
		must(t, s.ConfigureBucket(blog, "box", func(b *Bucket) error { b.Config["cors"] = append(b.Config["cors"], 'x'); return nil }))
	})
	step("kept by it", 0, func() { remove(t, s, long) })
	must(t, s.Restore(blog, "at"))
	a, err := s.account(blog)
	must(t, err)
	wantCounted(t, s, a)
	must(t, s.Fork(blog, "at", shop))
	if a, err = s.account(shop); err == nil {
		wantCounted(t, s, a)
	}
	must(t, err)
	must(t, s.Drop(blog, "at"))
	remove(t, s, long)
	remove(t, s, u.Key)
	must(t, s.DeleteBucket(blog, "box"))
	if n := charged(t, s); n != 0 {
		t.Errorf("%d bytes are charged for nothing", n)
	}
}

// wantCounted compares what an account has with its records.
func wantCounted(t *testing.T, s *Store, a *account) {
	t.Helper()
	for name, u := range a.used {
		if n, err := countOverhead(s.index, a.vm, name, strict); err != nil || n != u.Overhead {
			t.Errorf("%s has an overhead of %d, counted as %d, %v", name, n, u.Overhead, err)
		}
	}
	if f, err := countFootprint(s.index, a.vm, strict); err != nil || f != a.stored {
		t.Errorf("the footprint is %+v, counted as %+v, %v", f, a.stored, err)
	}
}

// What a write adds beside its body needs room too.
func TestQuotaOfRecords(t *testing.T) {
	s := open(t, t.TempDir(), quota(10_000))
	long := map[string]string{"x-amz-meta-a": strings.Repeat("x", 9500)}
	_, err := s.Put(t.Context(), Key{blog, "box", "x"}, Write{Meta: Meta{Header: long}})
	must(t, err)
	_, err = s.Put(t.Context(), Key{blog, "box", "y"}, Write{})
	wantErr(t, err, ErrQuota)
	_, err = s.NewUpload(Key{blog, "box", "u"}, UploadOptions{})
	wantErr(t, err, ErrQuota)
	_, err = s.Update(Key{blog, "box", "x"}, "", func(m *Meta) error { m.Header["x-amz-meta-b"] = strings.Repeat("x", 1000); return nil })
	wantErr(t, err, ErrQuota)
	must(t, s.ConfigureBucket(blog, "box", func(b *Bucket) error { b.Config["cors"] = make([]byte, 5000); return nil }))
	_, err = s.Update(Key{blog, "box", "x"}, "", func(m *Meta) error { delete(m.Header, "x-amz-meta-a"); return nil })
	must(t, err)
	put(t, s, Key{blog, "box", "y"}, nil)
	a, err := s.account(blog)
	must(t, err)
	wantCounted(t, s, a)
	if len(a.reserved) > 0 {
		t.Errorf("reserved for ever: %v", a.reserved)
	}
}

// A store of an earlier version has no overhead in its sums. It is counted once, and meanwhile other VMs go on.
func TestOverheadOfOldStores(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := s.Put(t.Context(), Key{blog, "box", "x"}, Write{Meta: Meta{Header: map[string]string{"x-amz-meta-a": strings.Repeat("x", 3000)}}})
	must(t, err)
	want := charged(t, s)
	must(t, s.index.Set(textKey(blog, kindUsage, "box"), encodeSum(0, 1, 0, 0), pebble.Sync))
	must(t, s.index.Set(footprintKey(blog), encodeSum(0, 0), pebble.Sync))
	must(t, s.Close())
	for range 2 {
		s = open(t, dir)
		if n := charged(t, s); n != want {
			t.Errorf("%d bytes are charged, want %d", n, want)
		}
		must(t, s.Close())
	}

	s = open(t, dir)
	delete(s.accounts, blog)
	unlock := s.loading.lock(string(blog[:])) // as while it is counted
	var wg sync.WaitGroup
	counted := make(chan struct{})
	wg.Go(func() {
		_, err := s.account(blog)
		close(counted)
		must(t, err)
	})
	put(t, s, Key{shop, "box", "x"}, nil)
	select {
	case <-counted:
		t.Error("an account is there before it is counted")
	default:
	}
	unlock()
	wg.Wait()
}

// At its quota a bucket can be configured: that is how it is closed, or cleaned. The configuration counts.
func TestConfigureAtQuota(t *testing.T) {
	limits := Limits{}
	s := open(t, t.TempDir(), func(c *Config) { c.Limits = func(gateway.ID, string) Limits { return limits } })
	put(t, s, Key{blog, "box", "x"}, []byte("hello"))
	before, err := s.Usage(blog)
	must(t, err)
	limits = Limits{VM: 1, Bucket: 1}
	must(t, s.ConfigureBucket(blog, "box", func(b *Bucket) error {
		b.Config["policy"] = make([]byte, 4<<10)
		return nil
	}))
	after, err := s.Usage(blog)
	must(t, err)
	if more := after.Charged() - before.Charged(); more < 3<<10 {
		t.Errorf("%d bytes are charged", more)
	}
	if _, err := s.Put(t.Context(), Key{blog, "box", "y"}, Write{Body: strings.NewReader("y"), Size: 1}); !errors.Is(err, ErrQuota) {
		t.Errorf("a write: %v", err)
	}
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
	must(t, s.index.Merge(textKey(blog, kindUsage, "box"), (&Usage{Overhead: 7}).encode(), pebble.Sync))
	if found := checked(t, s); len(found) != 1 || !strings.Contains(found[0].Err.Error(), "7 extra") {
		t.Errorf("a wrong sum: %v", found)
	}
}

// Large settings need room within the quota, and so does what the history of a checkpoint keeps of them.
func TestLargeSettingsAtQuota(t *testing.T) {
	const large = 100 << 10
	limits := Limits{}
	s := open(t, t.TempDir(), func(c *Config) { c.Limits = func(gateway.ID, string) Limits { return limits } })
	put(t, s, Key{blog, "box", "x"}, []byte("hello"))
	configure := func(size int, fill byte) error {
		return s.ConfigureBucket(blog, "box", func(b *Bucket) error { b.Config["cors"] = bytes.Repeat([]byte{fill}, size); return nil })
	}
	must(t, configure(large, 'a'))
	limits.VM = charged(t, s)
	wantErr(t, configure(large+1, 'a'), ErrQuota)
	must(t, configure(large, 'b'))
	must(t, configure(smallConfig, 'b')) // with the rest of the record more than that, but less than before
	must(t, configure(large, 'c'))
	for i := range 3 {
		mark(t, s, blog, fmt.Sprint(i))
		wantErr(t, configure(large, 'd'), ErrQuota)
	}
	if n := charged(t, s); n != limits.VM {
		t.Errorf("%d bytes are charged at a quota of %d", n, limits.VM)
	}
	limits = Limits{Bucket: limits.VM} // a history is of the VM
	must(t, configure(large, 'e'))
	limits = Limits{VM: charged(t, s)}
	mark(t, s, blog, "last")
	must(t, configure(smallConfig/2, 'f'))
	if n := charged(t, s) - limits.VM; n > smallConfig {
		t.Errorf("small settings add %d bytes", n)
	}
	_, err := s.CreateBucket(blog, "new", false)
	wantErr(t, err, ErrQuota)
	remove(t, s, Key{blog, "box", "x"})
	must(t, s.DeleteBucket(blog, "box"))
	if a, err := s.account(blog); err != nil || len(a.reserved) > 0 {
		t.Errorf("reserved for ever: %v, %v", a.reserved, err)
	}
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
}

// A record that is damaged counts nothing when a store of an earlier version is counted, and holds up nothing else.
func TestOverheadOfDamagedRecords(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	large := random(1, maxSmall+1)
	for _, name := range []string{"bad", "good"} {
		put(t, s, Key{blog, "box", name}, large)
	}
	put(t, s, Key{blog, "torn", "x"}, nil)
	u, err := s.NewUpload(Key{blog, "box", "u"}, UploadOptions{})
	must(t, err)
	b, err := bucketOf(s.index, blog, "box")
	must(t, err)
	v, err := s.find(Key{blog, "box", "bad"}, "")
	must(t, err)
	for _, key := range [][]byte{
		nameKey(blog, kindObject, b.number, "bad"), numKey(blog, kindFile, v.content.id), textKey(blog, kindBucket, "torn"),
		seqKey(blog, kindUpload, b.number, "u", u.number),
	} {
		_, err := value(s.index, key)
		must(t, err)
		must(t, s.index.Set(key, []byte("garbage"), pebble.Sync))
	}
	must(t, s.index.Set(textKey(blog, kindUsage, "box"), encodeSum(2*int64(len(large)), 2, 0, 1), pebble.Sync))
	must(t, s.index.Set(textKey(blog, kindUsage, "torn"), encodeSum(0, 1, 0, 0), pebble.Sync))
	must(t, s.index.Set(footprintKey(blog), encodeSum(0, 0), pebble.Sync))
	must(t, s.Close())
	s = open(t, dir)
	wantBody(t, s, Key{blog, "box", "good"}, "", large)
	put(t, s, Key{blog, "box", "new"}, large)
	_, err = s.Head(Key{blog, "box", "bad"}, "")
	wantErr(t, err, ErrDamaged)
	_, err = s.Bucket(blog, "torn")
	wantErr(t, err, ErrDamaged)
	found := checked(t, s)
	for _, d := range found {
		wantErr(t, d.Err, ErrDamaged)
	}
	if len(found) == 0 {
		t.Error("nothing damaged is found")
	}
}
