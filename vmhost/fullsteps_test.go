package vmhost

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt"
)

// fill writes to the disk until it is full.
func (w *world) fill() {
	f, err := os.Create(w.filler())
	if err != nil {
		panic(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; _, err = f.Write(make([]byte, size)) {
		}
		if !errors.Is(err, syscall.ENOSPC) {
			panic(err)
		}
	}
}

func (w *world) filler() string { return filepath.Join(filepath.Dir(w.config.StateDir), "full") }

// The disk gets full at any step of a verb: the verb is done, or there is an error and the VM is as before.
// Once there is room again, the verb works, and nothing is left over.
func TestFullDiskAtAnyStep(t *testing.T) {
	w := newWorld(t, 24<<20)
	for _, verb := range []verb{
		{"checkpoint", w.checkpoint},
		{"rollback", w.rollback},
		{"fork", w.fork},
		{"checkpoint rm", w.removeCheckpoint},
		{"rm", w.remove},
		{"new", w.create},
		{"start", w.start},
	} {
		for n, passed := 0, false; !passed; n++ {
			passed = w.whenFull(t, verb, n)
			if t.Failed() {
				t.Fatalf("%s, full at point %d", verb.name, n)
			}
		}
	}
}

// makeReady makes sure that each verb can be done: there is a name for one more VM, and each VM has a
// checkpoint.
func (w *world) makeReady(t *testing.T) {
	t.Helper()
	if _, free := w.name(); !free {
		gatewaytest.Must(t, w.h.removeData(t.Context(), w.h.dir.All()[0].ID))
	}
	if len(w.h.dir.All()) == 0 {
		do, _ := w.create(t)
		gatewaytest.Must(t, do())
	}
	for _, m := range w.h.dir.All() {
		if len(w.h.checkpoints.Of(m.ID)) == 0 {
			_, err := w.h.checkpoint(t.Context(), m, libvirt.Absent, gateway.CheckpointRequest{Kind: gateway.CheckpointAsked})
			gatewaytest.Must(t, err)
		}
	}
	w.is = w.read(t)
}

// whenFull does a verb during which the disk gets full at the nth point, and reports whether there are
// fewer.
func (w *world) whenFull(t *testing.T, v verb, n int) (passed bool) {
	t.Helper()
	w.makeReady(t)
	do, after := v.prepare(t)
	w.room = n
	err := do()
	passed, w.room = w.room >= 0, -1
	gatewaytest.Must(t, os.RemoveAll(w.filler()))
	want := after[len(after)-1:]
	if err != nil {
		want = append(after, w.is)
		if !durable.IsFull(err) && gateway.KindOf(err) != gateway.KindNoSpace {
			t.Errorf("%v: not about a full disk", err)
		}
	}
	w.open(t)
	if w.is = w.read(t); !slices.ContainsFunc(want, func(m model) bool { return cmp.Equal(m, w.is) }) {
		t.Errorf("%v; -want +got:\n%s", err, cmp.Diff(want[0], w.is))
	}
	w.checkRests(t)
	return passed
}
