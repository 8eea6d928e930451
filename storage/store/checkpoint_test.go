package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// TestUndoOfTheUndo restores an old snapshot, then one that was taken just before that, then the old one again.
func TestUndoOfTheUndo(t *testing.T) {
	s := open(t, t.TempDir())
	s.stepSize = 3
	write := func(seed uint64) {
		for i := range 10 {
			put(t, s, Key{blog, "box", fmt.Sprint(i)}, random(seed, maxSmall-5+i))
		}
	}
	same := func(seed uint64) {
		t.Helper()
		for i := range 10 {
			wantBody(t, s, Key{blog, "box", fmt.Sprint(i)}, "", random(seed, maxSmall-5+i))
		}
		if found := checked(t, s); len(found) > 0 {
			t.Error(found)
		}
	}
	write(1)
	mark(t, s, blog, "old")
	write(2)
	mark(t, s, blog, "between")
	write(3)
	mark(t, s, blog, "before")
	for _, step := range []struct {
		name string
		seed uint64
	}{{"old", 1}, {"old", 1}, {"before", 3}, {"between", 2}, {"old", 1}, {"between", 2}} {
		must(t, s.Restore(blog, step.name))
		same(step.seed)
	}
	for _, name := range []string{"between", "old", "before"} {
		must(t, s.Drop(blog, name))
		same(2)
	}
	if n := len(files(t, s)); n != 4 { // of the ten bodies
		t.Errorf("%d files", n)
	}
}

// TestHold holds writes back: they wait for the release, and are refused if it does not come. Reads go on, and so do
// other VMs. A hold that nobody ends, ends.
func TestHold(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, Key{blog, "box", "x"}, []byte("old"))
	own, err := s.account(blog)
	must(t, err)
	release, err := s.Snapshot(blog, "one")
	must(t, err)
	ended := make(chan error)
	go func() {
		_, err := s.Put(t.Context(), Key{blog, "box", "x"}, Write{Body: bytes.NewReader([]byte("new")), Size: -1})
		ended <- err
	}()
	gatewaytest.WaitFor(t, "the write waits", func() bool { return own.gate.Waiting() == 1 })
	wantBody(t, s, Key{blog, "box", "x"}, "", []byte("old"))
	put(t, s, Key{shop, "box", "x"}, nil)
	release()
	must(t, <-ended)
	must(t, s.Restore(blog, "one"))
	wantBody(t, s, Key{blog, "box", "x"}, "", []byte("old"))

	own.gate.MaxWait = time.Millisecond
	release, err = s.Snapshot(blog, "two")
	must(t, err)
	_, err = s.Put(t.Context(), Key{blog, "box", "x"}, Write{Body: bytes.NewReader(nil)})
	wantErr(t, err, ErrHeld)
	_, err = s.CreateBucket(blog, "other", false)
	wantErr(t, err, ErrHeld)
	must(t, s.Restore(blog, "one")) // it does not wait for itself
	release()
	put(t, s, Key{blog, "box", "x"}, []byte("new"))

	own.gate.MaxWait, own.gate.MaxHold = time.Minute, time.Millisecond
	_, err = s.Snapshot(blog, "three")
	must(t, err)
	put(t, s, Key{blog, "box", "x"}, []byte("newer"))
}

// TestAFailedRestoreStopsNobodyElse opens a store with a restore that always fails: its VM is refused, others are
// served. When the cause has gone, the restore is repeated.
func TestAFailedRestoreStopsNobodyElse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, Key{blog, "box", "x"}, []byte("old"))
	put(t, s, Key{shop, "box", "x"}, []byte("shop's"))
	mark(t, s, blog, "at")
	put(t, s, Key{blog, "box", "x"}, []byte("new"))
	own, err := s.account(blog)
	must(t, err)
	at, _ := own.find("at")
	b, err := bucketOf(s.index, blog, "box")
	must(t, err)
	history := historyKey(blog, at, nameKey(blog, kindObject, b.number, "x"))
	good, err := value(s.index, history)
	must(t, err)
	must(t, s.index.Set(history, nil, pebble.Sync))
	wantErr(t, s.Restore(blog, "at"), ErrDamaged)
	must(t, s.Close())

	s = open(t, dir, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	wantErr(t, s.Readable(blog), ErrUnfinished)
	_, err = s.Put(t.Context(), Key{blog, "box", "y"}, Write{Body: bytes.NewReader(nil)})
	wantErr(t, err, ErrUnfinished)
	must(t, s.Readable(shop))
	wantBody(t, s, Key{shop, "box", "x"}, "", []byte("shop's"))
	put(t, s, Key{shop, "box", "x"}, []byte("shop's new"))
	must(t, s.index.Set(history, good, pebble.Sync))
	must(t, s.Restore(blog, "at"))
	must(t, s.Readable(blog))
	wantBody(t, s, Key{blog, "box", "x"}, "", []byte("old"))
}

// TestAForkUsesQuota counts what a fork has from its source, as own writes.
func TestAForkUsesQuota(t *testing.T) {
	dir := t.TempDir()
	limit := func(c *Config) {
		c.Limits = func(gateway.ID, string) Limits { return Limits{VM: 100_000 + 2*recordBytes} }
	}
	s := open(t, dir, limit)
	put(t, s, Key{blog, "box", "x"}, random(1, 60_000))
	mark(t, s, blog, "at")
	put(t, s, Key{blog, "box", "y"}, random(2, 30_000)) // after the mark, so not in the fork
	must(t, s.Fork(blog, "at", shop))
	for range 2 {
		u, err := s.Usage(shop)
		if err != nil || u.Bytes != 60_000 || u.Objects != 1 || len(u.Buckets) != 1 {
			t.Errorf("usage of the fork %+v, %v", u, err)
		}
		_, err = s.Put(t.Context(), Key{shop, "box", "z"}, Write{Body: bytes.NewReader(random(3, 50_000)), Size: -1})
		wantErr(t, err, ErrQuota)
		must(t, s.Close())
		s = open(t, dir, limit)
	}
	put(t, s, Key{shop, "box", "z"}, random(3, 40_000))
}

// TestFilesOutliveDeletionsInProgress deletes two names that share a file. The second deletion is in the index, but
// not on disk: the file stays until it is, since a crash would bring the second name back.
func TestFilesOutliveDeletionsInProgress(t *testing.T) {
	var syncs sync.RWMutex // locked: no log is synced
	slow := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && slices.Contains([]errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}, op.Kind) {
			syncs.RLock()
			defer syncs.RUnlock()
		}
		return nil
	}))
	s := open(t, t.TempDir(), func(c *Config) { c.fs = slow })
	one, two := Key{blog, "box", "1"}, Key{blog, "box", "2"}
	put(t, s, one, random(1, maxSmall+1))
	_, err := s.Copy(t.Context(), one, "", two, CopyOptions{})
	must(t, err)
	body, err := s.Get(two, "")
	must(t, err)
	shared := body.content
	must(t, body.Close())
	_, err = s.Delete(t.Context(), one, "", Condition{}, false)
	must(t, err)

	syncs.Lock()
	deleted, collected := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Delete(t.Context(), two, "", Condition{}, false)
		deleted <- err
	}()
	gatewaytest.WaitFor(t, "the deletion is in the index", func() bool {
		held, err := s.held(blog, shared)
		return !held && err == nil
	})
	logged := s.index.Metrics().WAL.BytesIn
	go func() { collected <- s.tryCollect(blog, shared, 1) }() // as after the first deletion
	gatewaytest.WaitFor(t, "the collection has written to the log: what it syncs, or that the file is gone", func() bool {
		return s.index.Metrics().WAL.BytesIn > logged
	})
	if n := len(files(t, s)); n != 1 {
		t.Errorf("%d files", n)
	}
	syncs.Unlock()
	must(t, <-deleted)
	must(t, <-collected)
	if n := len(files(t, s)); n != 0 {
		t.Errorf("%d files", n)
	}
}
