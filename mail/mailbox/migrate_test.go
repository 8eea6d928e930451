package mailbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

// writeOld writes a mailbox as it was before the log, with three messages, the second expunged, the
// third longer than 1 MiB, and a body that no record names. It returns the queue ids.
func writeOld(t *testing.T, dir string) (ids []string) {
	t.Helper()
	gatewaytest.Must(t, os.MkdirAll(filepath.Join(dir, "msg"), 0o700))
	var index []byte
	put := func(r oldRecord) {
		payload, err := json.Marshal(r)
		gatewaytest.Must(t, err)
		index = fmt.Appendf(index, "%08x %08x %s\n", checksum(payload), len(payload), payload)
	}
	put(oldRecord{Op: "head", Validity: 77, UID: 10})
	for i, body := range []string{"first", "expunged", strings.Repeat("3", maxInlineBytes+1), "orphan"} {
		id := NewQueueID(time.Now())
		ids = append(ids, id)
		gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "msg", id), []byte(body), 0o600))
		if i < 3 {
			put(oldRecord{
				Op: "add", UID: uint32(i) + 4, QueueID: id, From: "a@b", Rcpt: "c@d", Subject: "hi", Head: "Head: x\r\n",
				Bytes: int64(len(body)) + 9, Received: time.Now(),
			})
		}
	}
	put(oldRecord{Op: "flags", UIDs: []uint32{6}, Flags: Seen})
	put(oldRecord{Op: "expunge", UIDs: []uint32{5}})
	put(oldRecord{Op: "cursor", UID: 4})
	gatewaytest.Must(t, os.Remove(filepath.Join(dir, "msg", ids[1])))
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "index"), index, 0o600))
	return ids
}

// A mailbox of the old form is read as it was, also after crashes in the migration; what its index
// does not name is kept in lost.
func TestMigrate(t *testing.T) {
	crash := map[string]func(*Box) error{
		"none": func(*Box) error { return nil },
		"while copying": func(b *Box) error {
			return errors.Join(os.MkdirAll(b.log+".new", 0o700), os.WriteFile(filepath.Join(b.log+".new", "rubbish"), nil, 0o600))
		},
		"after the rename": (*Box).migrate,
	}
	for name, crash := range crash {
		t.Run(name, func(t *testing.T) {
			root, vm := t.TempDir(), gateway.NewID()
			dir := filepath.Join(root, vm.String())
			ids := writeOld(t, dir)
			gatewaytest.Must(t, crash(newBox(dir, filepath.Join(dir, "log"), slog.New(slog.DiscardHandler))))
			for range 2 {
				s := open(t, root)
				b := box(t, s, vm)
				now := b.Snapshot()
				if now.Entries.Len() != 2 || now.Validity != 77 || now.NextUID != 10 || now.cursor != 4 || entries(now.Entries)[1].Flags != Seen {
					t.Fatalf("snapshot: %+v", now)
				}
				if got := read(t, b, ids[0]); got != "Head: x\r\nfirst" {
					t.Errorf("got %q", got)
				}
				if got := read(t, b, ids[2]); len(got) != maxInlineBytes+10 || !strings.HasSuffix(got, "\n"+strings.Repeat("3", 100)) && !strings.HasSuffix(got, "333") {
					t.Errorf("got %d bytes", len(got))
				}
				s.Close()
			}
			for _, left := range []string{"msg", "index", "log.new"} {
				if _, err := os.Stat(filepath.Join(dir, left)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", left, err)
				}
			}
			if b, err := os.ReadFile(filepath.Join(dir, "lost", ids[3])); err != nil || string(b) != "orphan" {
				t.Errorf("orphan: %q, %v", b, err)
			}
		})
	}
}

// Damage to the old files costs only what it hit, and keeps what is left of it.
func TestMigrateDamaged(t *testing.T) {
	rows := map[string]struct {
		damage func(dir string, ids []string) error
		want   int // messages
		lost   int // index of the id whose body is in lost
	}{
		"index missing": {func(dir string, _ []string) error { return os.Remove(filepath.Join(dir, "index")) }, 0, 0},
		"index cut":     {func(dir string, _ []string) error { return os.Truncate(filepath.Join(dir, "index"), 200) }, 0, 2},
		"body cut":      {func(dir string, ids []string) error { return os.Truncate(filepath.Join(dir, "msg", ids[0]), 2) }, 1, 0},
		"body gone":     {func(dir string, ids []string) error { return os.Remove(filepath.Join(dir, "msg", ids[2])) }, 1, 3},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			root, vm := t.TempDir(), gateway.NewID()
			dir := filepath.Join(root, vm.String())
			ids := writeOld(t, dir)
			gatewaytest.Must(t, r.damage(dir, ids))
			report := &gatewaytest.Log{}
			s, err := Open(root, report.Logger())
			gatewaytest.Must(t, err)
			defer s.Close()
			b := box(t, s, vm)
			if n := b.Snapshot().Entries.Len(); n != r.want {
				t.Errorf("%d messages, want %d\n%s", n, r.want, report)
			}
			if _, err := os.Stat(b.lost(ids[r.lost])); err != nil {
				t.Error(err)
			}
			if report.Count("level=ERROR") == 0 {
				t.Error("not reported")
			}
			mustPut(t, s, "new", vm)
		})
	}
}

// manyOld writes an old mailbox of n messages of size bytes, and returns its directory.
func manyOld(tb testing.TB, root string, vm gateway.ID, n, size int) (dir string) {
	tb.Helper()
	dir = filepath.Join(root, vm.String())
	gatewaytest.Must(tb, os.MkdirAll(filepath.Join(dir, "msg"), 0o700))
	body := []byte(strings.Repeat("x", size))
	var index []byte
	for i := range n {
		r := oldRecord{Op: "add", UID: uint32(i) + 1, QueueID: NewQueueID(time.Now()), From: "a@b", Bytes: int64(size), Received: time.Now()}
		payload, err := json.Marshal(r)
		gatewaytest.Must(tb, err)
		index = fmt.Appendf(index, "%08x %08x %s\n", checksum(payload), len(payload), payload)
		gatewaytest.Must(tb, os.WriteFile(filepath.Join(dir, "msg", r.QueueID), body, 0o600))
	}
	gatewaytest.Must(tb, os.WriteFile(filepath.Join(dir, "index"), index, 0o600))
	return dir
}

// A migration that is stopped leaves the old mailbox, and the next one goes on where it was, also behind what a crash
// has torn.
func TestMigrateStopped(t *testing.T) {
	const n = 40
	for name, tear := range map[string]int64{"stopped": 0, "torn": 3} {
		t.Run(name, func(t *testing.T) {
			root, vm := t.TempDir(), gateway.NewID()
			dir := manyOld(t, root, vm, n, maxInlineBytes/2)
			stop := make(chan struct{})
			close(stop)
			logger := slog.New(slog.DiscardHandler)
			if _, err := openBox(dir, logger, stop); !errors.Is(err, errStopped) {
				t.Fatalf("stopped: %v", err)
			}
			// As far as one batch of ten.
			half := newBox(dir, filepath.Join(dir, "log"), logger)
			old, messages, err := half.readOld()
			gatewaytest.Must(t, err)
			m, err := half.resume()
			gatewaytest.Must(t, err)
			batch := &ticket{}
			for _, e := range entries(old.list.List)[:10] {
				gatewaytest.Must(t, m.copyBody(messages[e.UID], e.QueueID))
				batch.frames = append(batch.frames, messages[e.UID])
			}
			gatewaytest.Must(t, m.roll())
			gatewaytest.Must(t, m.copyBatch(batch))
			m.seal()
			if tear > 0 {
				path := m.path(m.last())
				info, err := os.Stat(path)
				gatewaytest.Must(t, err)
				gatewaytest.Must(t, os.Truncate(path, info.Size()-tear))
			}
			again, err := newBox(dir, filepath.Join(dir, "log"), logger).resume()
			gatewaytest.Must(t, err)
			if have := again.state.list.Len(); (have == 10) != (tear == 0) {
				t.Errorf("%d messages are gone on with", have)
			}
			again.seal()
			s := open(t, root)
			defer s.Close()
			b := box(t, s, vm)
			if b.Snapshot().Entries.Len() != n {
				t.Errorf("%d messages", b.Snapshot().Entries.Len())
			}
			for _, e := range b.Snapshot().Entries.All() {
				if got := read(t, b, e.QueueID); len(got) != maxInlineBytes/2 {
					t.Errorf("message %d has %d bytes", e.UID, len(got))
				}
			}
			for _, left := range []string{filepath.Join(dir, "log.new"), filepath.Join(dir, "msg")} {
				if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", left, err)
				}
			}
			if lost := glob(filepath.Join(dir, "lost", "*@*")); len(lost) != 0 {
				t.Errorf("lost: %v", lost)
			}
		})
	}
}

// A migration that the disk has no room for leaves nothing of the new log, and the old mailbox as it was.
func TestMigrateFull(t *testing.T) {
	root, vm := sandboxtest.SmallDisk(t, 10<<20), gateway.NewID()
	dir := manyOld(t, root, vm, 20, 300<<10)
	s := open(t, root)
	if _, err := s.Box(vm); gateway.KindOf(err) != gateway.KindNoSpace {
		t.Errorf("on a full disk: %v", err)
	}
	if left := glob(filepath.Join(dir, "log*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if n := len(glob(filepath.Join(dir, "msg", "*"))); n != 20 {
		t.Errorf("%d old bodies", n)
	}
	s.Close()
}

// BenchmarkMigrate is the migration of 10,000 messages of 4 KiB.
func BenchmarkMigrate(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		root, vm := b.TempDir(), gateway.NewID()
		dir := manyOld(b, root, vm, 10_000, 4096)
		b.StartTimer()
		m, err := openBox(dir, slog.New(slog.DiscardHandler), nil)
		gatewaytest.Must(b, err)
		m.close(errClosed())
	}
}
