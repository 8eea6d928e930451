package storage

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// mark makes a mark and ends its hold.
func (h *host) mark(tb testing.TB, vm gateway.ID, id gateway.CheckpointID) {
	tb.Helper()
	release, err := h.Mark(tb.Context(), vm, id)
	gatewaytest.Must(tb, err)
	release()
}

func wantKind(tb testing.TB, err error, kind gateway.Kind) {
	tb.Helper()
	if err == nil || gateway.KindOf(err) != kind {
		tb.Errorf("error %v, want %s", err, kind)
	}
}

// Two VMs have checkpoints of the same id. A rewind brings the one's objects back, and leaves the other's alone; a fork
// has what its source had, and both go their own ways.
func TestCheckpoint(t *testing.T) {
	h := newHost(t)
	one, two, fork := h.guest("one"), h.guest("two"), h.guest("fork")
	old, late := random(200_000), random(100)
	for _, g := range []guest{one, two} {
		put(t, g.dummy(), "box", "x", old)
		h.mark(t, g.ID, "first")
		put(t, g.dummy(), "box", "x", late)
		put(t, g.dummy(), "late", "y", late)
	}
	h.mark(t, one.ID, "undo")
	for range 2 { // after a crash it is repeated
		gatewaytest.Must(t, h.Rewind(t.Context(), one.ID, "first"))
		gatewaytest.Must(t, h.Fork(t.Context(), one.ID, "first", fork.ID))
	}
	put(t, fork.dummy(), "box", "z", late)
	for name, g := range map[string]guest{"rewound": one, "fork": fork} {
		if got := get(t, g.dummy(), "box", "x"); !bytes.Equal(got, old) {
			t.Errorf("%s: %d other bytes", name, len(got))
		}
		_, err := g.dummy().StatObject(t.Context(), "late", "y", minio.StatObjectOptions{})
		wantCode(t, err, "NoSuchKey", 404)
	}
	_, err := one.dummy().StatObject(t.Context(), "box", "z", minio.StatObjectOptions{})
	wantCode(t, err, "NoSuchKey", 404)
	gatewaytest.Must(t, h.Rewind(t.Context(), one.ID, "undo"))
	for _, g := range []guest{one, two} {
		if !bytes.Equal(get(t, g.dummy(), "box", "x"), late) || !bytes.Equal(get(t, g.dummy(), "late", "y"), late) {
			t.Errorf("%s has not what it had last", g.Name)
		}
	}
}

// Each wrong call has an error with what is wrong, and changes nothing.
func TestBadCheckpoints(t *testing.T) {
	h := newHost(t)
	one, two := h.guest("one"), h.guest("two")
	h.mark(t, one.ID, "empty") // of a VM that has nothing
	put(t, one.dummy(), "box", "x", nil)
	put(t, two.dummy(), "box", "x", nil)
	_, err := h.Mark(t.Context(), one.ID, "empty")
	wantKind(t, err, gateway.KindConflict)
	_, err = h.Mark(t.Context(), one.ID, "")
	wantKind(t, err, gateway.KindInvalid)
	wantKind(t, h.Rewind(t.Context(), one.ID, "other"), gateway.KindNotFound)
	wantKind(t, h.Rewind(t.Context(), two.ID, "empty"), gateway.KindNotFound)
	wantKind(t, h.Fork(t.Context(), one.ID, "other", gateway.NewID()), gateway.KindNotFound)
	wantKind(t, h.Fork(t.Context(), one.ID, "empty", two.ID), gateway.KindConflict)
	gatewaytest.Must(t, h.Drop(t.Context(), one.ID, "other"))
	ids, err := h.Marks(t.Context(), one.ID)
	gatewaytest.Must(t, err)
	if diff := cmp.Diff([]gateway.CheckpointID{"empty"}, ids); diff != "" {
		t.Error(diff)
	}
	gatewaytest.Must(t, h.Rewind(t.Context(), one.ID, "empty"))
	gatewaytest.Must(t, h.Drop(t.Context(), one.ID, "empty"))
	one.markRemoved(t)
	gatewaytest.Must(t, h.Remove(t.Context(), one.ID))
	_, err = h.Mark(t.Context(), one.ID, "late")
	wantKind(t, err, gateway.KindNotFound)
}

// A write during a checkpoint waits; reads go on.
func TestWritesWaitForACheckpoint(t *testing.T) {
	h := newHost(t)
	g := h.guest("one")
	put(t, g.dummy(), "box", "x", []byte("old"))
	release, err := h.Mark(t.Context(), g.ID, "now")
	gatewaytest.Must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		put(t, g.dummy(), "box", "x", []byte("new"))
	}()
	gatewaytest.WaitFor(t, "the write waits", func() bool { return h.objects.Waiting(g.ID) == 1 })
	if got := get(t, g.dummy(), "box", "x"); string(got) != "old" {
		t.Errorf("read %q", got)
	}
	release()
	<-done
	if got := get(t, g.dummy(), "box", "x"); string(got) != "new" {
		t.Errorf("read %q", got)
	}
}

// A write that waits too long gets SlowDown, which clients repeat.
func TestAHeldWriteIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits 5 s")
	}
	t.Parallel()
	h := newHost(t)
	g := h.guest("one")
	put(t, g.dummy(), "box", "x", []byte("old"))
	release, err := h.Mark(t.Context(), g.ID, "now")
	gatewaytest.Must(t, err)
	defer release()
	_, err = g.dummy().PutObject(t.Context(), "box", "x", bytes.NewReader(nil), 0, minio.PutObjectOptions{})
	wantCode(t, err, "SlowDown", 503)
}
