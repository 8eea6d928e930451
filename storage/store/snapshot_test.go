package store

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// TestRestoreBringsBucketsBack deletes and makes buckets between a snapshot and its restore.
func TestRestoreBringsBucketsBack(t *testing.T) {
	s := open(t, t.TempDir())
	large := random(1, 2*maxSmall)
	put(t, s, Key{blog, "one", "x"}, large)
	must(t, s.ConfigureBucket(blog, "one", func(b *Bucket) error { b.Config["cors"] = []byte("c"); return nil }))
	mark(t, s, blog, "at")
	_, err := s.Delete(t.Context(), Key{blog, "one", "x"}, "", Condition{}, false)
	must(t, err)
	must(t, s.DeleteBucket(blog, "one"))
	put(t, s, Key{blog, "one", "y"}, []byte("new"))
	put(t, s, Key{blog, "two", "z"}, random(3, 2*maxSmall))
	u, err := s.NewUpload(Key{blog, "two", "u"}, UploadOptions{})
	must(t, err)
	_, err = s.PutPart(t.Context(), u.Key, u.ID, 1, Write{Body: bytes.NewReader(large), Size: -1})
	must(t, err)
	must(t, s.Restore(blog, "at"))
	wantBody(t, s, Key{blog, "one", "x"}, "", large)
	b, err := s.Bucket(blog, "one")
	if err != nil || string(b.Config["cors"]) != "c" {
		t.Errorf("bucket %+v, %v", b, err)
	}
	_, err = s.Head(Key{blog, "one", "y"}, "")
	wantErr(t, err, ErrNoKey)
	_, err = s.Bucket(blog, "two")
	wantErr(t, err, ErrNoBucket)
	usage, err := s.Usage(blog)
	if err != nil || usage.Bytes != int64(len(large)) || usage.Objects != 1 || usage.Pending != 0 || len(usage.Buckets) != 1 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if n := len(files(t, s)); n != 1 {
		t.Errorf("%d files", n)
	}
	_, err = s.Snapshot(blog, "at")
	wantErr(t, err, ErrSnapshotExists)
	wantErr(t, s.Restore(blog, "later"), ErrNoSnapshot)
	wantErr(t, s.Drop(shop, "at"), ErrNoSnapshot)
	wantErr(t, s.Fork(blog, "at", blog), ErrNotEmpty)
	must(t, s.Drop(blog, "at"))
	wantErr(t, s.Drop(blog, "at"), ErrNoSnapshot)
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
}

// TestProgressGoesOn stops a restore, a drop and a fork where a crash would: after their record, before their
// end. Open goes on.
func TestProgressGoesOn(t *testing.T) {
	for name, what := range map[string]byte{"restore": restoring, "drop": dropping} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			for i := range 20 {
				put(t, s, Key{blog, "box", fmt.Sprint(i)}, random(1, maxSmall+i))
			}
			mark(t, s, blog, "at")
			for i := range 20 {
				put(t, s, Key{blog, "box", fmt.Sprint(i)}, random(2, maxSmall+i))
			}
			own, err := s.account(blog)
			must(t, err)
			at, _ := own.find("at")
			b, err := bucketOf(s.index, blog, "box")
			must(t, err)
			broken := historyKey(blog, at, nameKey(blog, kindObject, b.number, "5"))
			good, err := value(s.index, broken)
			must(t, err)
			must(t, s.index.Set(broken, nil, pebble.Sync))
			s.stepSize = 3
			if what == restoring {
				err = s.Restore(blog, "at")
			} else {
				err = s.Drop(blog, "at")
			}
			wantErr(t, err, ErrDamaged)
			must(t, s.index.Set(broken, good, pebble.Sync))
			must(t, s.Close())
			s = open(t, dir)
			for i := range 20 {
				seed := uint64(2)
				if what == restoring {
					seed = 1
				}
				wantBody(t, s, Key{blog, "box", fmt.Sprint(i)}, "", random(seed, maxSmall+i))
			}
			if found := checked(t, s); len(found) > 0 {
				t.Error(found)
			}
			left, err := s.Snapshots(blog)
			if err != nil || len(left) == 1 != (what == restoring) {
				t.Errorf("snapshots %v, %v", left, err)
			}
		})
	}
	t.Run("fork", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		put(t, s, Key{blog, "box", "x"}, random(1, maxSmall+1))
		mark(t, s, blog, "at")
		must(t, s.Fork(blog, "at", shop))
		must(t, s.index.Set(vmKey(shop, kindProgress, 0), []byte{forking}, pebble.Sync))
		must(t, s.Close())
		s = open(t, dir)
		_, err := s.Bucket(shop, "box")
		wantErr(t, err, ErrNoBucket)
		must(t, s.Fork(blog, "at", shop))
		for _, vm := range []gateway.ID{blog, shop} {
			wantBody(t, s, Key{vm, "box", "x"}, "", random(1, maxSmall+1))
		}
		must(t, s.Remove(blog))
		wantBody(t, s, Key{shop, "box", "x"}, "", random(1, maxSmall+1))
	})
}

// TestFailedRestoreIsRepeated damages a history, so that a restore fails half way: nothing else changes the VM until
// it was repeated with success. Neither is a later write lost at the next start.
func TestFailedRestoreIsRepeated(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"a", "b"} {
		put(t, s, Key{blog, "box", name}, []byte("old"))
	}
	mark(t, s, blog, "at")
	for _, name := range []string{"a", "b"} {
		put(t, s, Key{blog, "box", name}, []byte("new"))
	}
	mark(t, s, blog, "other")
	own, err := s.account(blog)
	must(t, err)
	at, _ := own.find("at")
	b, err := bucketOf(s.index, blog, "box")
	must(t, err)
	history := historyKey(blog, at, nameKey(blog, kindObject, b.number, "b"))
	good, err := value(s.index, history)
	must(t, err)
	must(t, s.index.Set(history, nil, pebble.Sync))
	s.stepSize = 1
	wantErr(t, s.Restore(blog, "at"), ErrDamaged)

	_, err = s.Put(t.Context(), Key{blog, "box", "late"}, Write{Body: bytes.NewReader(nil)})
	wantErr(t, err, ErrUnfinished)
	_, err = s.CreateBucket(blog, "late", false)
	wantErr(t, err, ErrUnfinished)
	_, err = s.Snapshot(blog, "late")
	wantErr(t, err, ErrUnfinished)
	wantErr(t, s.Fork(blog, "at", shop), ErrUnfinished)
	wantErr(t, s.Drop(blog, "at"), ErrUnfinished)
	wantErr(t, s.Restore(blog, "other"), ErrUnfinished)

	must(t, s.index.Set(history, good, pebble.Sync))
	must(t, s.Restore(blog, "at"))
	put(t, s, Key{blog, "box", "late"}, []byte("late"))
	must(t, s.Close())
	s = open(t, dir)
	for name, want := range map[string]string{"a": "old", "b": "old", "late": "late"} {
		wantBody(t, s, Key{blog, "box", name}, "", []byte(want))
	}
}

// TestAFailedDropStopsNoWrites damages a history, so that a drop fails half way. Writes go on, and what they keep for
// the snapshot is dropped with it when the drop is repeated; the snapshot before is whole.
func TestAFailedDropStopsNoWrites(t *testing.T) {
	s := open(t, t.TempDir())
	s.stepSize = 3
	write := func(seed uint64) {
		for i := range 10 {
			put(t, s, Key{blog, "box", fmt.Sprint(i)}, random(seed, maxSmall-5+i))
		}
	}
	write(1)
	mark(t, s, blog, "before")
	mark(t, s, blog, "at")
	write(2)
	own, err := s.account(blog)
	must(t, err)
	at, _ := own.find("at")
	b, err := bucketOf(s.index, blog, "box")
	must(t, err)
	history := historyKey(blog, at, nameKey(blog, kindObject, b.number, "8"))
	good, err := value(s.index, history)
	must(t, err)
	must(t, s.index.Set(history, nil, pebble.Sync))
	wantErr(t, s.Drop(blog, "at"), ErrDamaged)
	for i := range 5 {
		put(t, s, Key{blog, "box", fmt.Sprint(i)}, random(3, maxSmall-5+i))
	}
	_, err = s.Snapshot(blog, "late")
	wantErr(t, err, ErrUnfinished)
	wantErr(t, s.Fork(blog, "before", shop), ErrUnfinished)
	wantErr(t, s.Restore(blog, "before"), ErrUnfinished)

	must(t, s.index.Set(history, good, pebble.Sync))
	must(t, s.Drop(blog, "at"))
	wantBody(t, s, Key{blog, "box", "4"}, "", random(3, maxSmall-1))
	must(t, s.Restore(blog, "before"))
	for i := range 10 {
		wantBody(t, s, Key{blog, "box", fmt.Sprint(i)}, "", random(1, maxSmall-5+i))
	}
	must(t, s.Drop(blog, "before"))
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
}

// TestNoChecksumsOfARemovedFork computes a file's checksums while the failed fork that had it is removed: the VM stays
// empty, and the fork can be made again.
func TestNoChecksumsOfARemovedFork(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, Key{blog, "box", "x"}, nil)
	mark(t, s, blog, "at")
	b := s.index.NewBatch()
	must(t, b.Set(numKey(shop, kindFile, 1), []byte("checksums"), nil))
	must(t, s.commitSealed(shop, 1, b))
	must(t, b.Close())
	must(t, s.Fork(blog, "at", shop))
}

// mark takes a snapshot without holding anything back.
func mark(t testing.TB, s *Store, vm gateway.ID, name string) {
	t.Helper()
	release, err := s.Snapshot(vm, name)
	must(t, err)
	release()
}
