package mailbox

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Run removes old mail that is in the guest; not what waits, is parked, is newer, or is a VM's that keeps
// all.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		vm, forever := gateway.NewID(), gateway.NewID()
		s := open(t, dir)
		s.Obey(func(id gateway.ID) gateway.MailSettings {
			return map[gateway.ID]gateway.MailSettings{vm: {Keep: 24 * time.Hour}}[id]
		})
		b := box(t, s, vm)
		for range 4 {
			mustPut(t, s, "x", vm, forever)
		}
		time.Sleep(20 * time.Hour)
		mustPut(t, s, "x", vm, forever)
		gatewaytest.Must(t, b.Park(2))
		gatewaytest.Must(t, b.Delivered(3))
		gatewaytest.Must(t, box(t, s, forever).Delivered(5))
		left := func() (uids []uint32) {
			for _, e := range b.Snapshot().Entries {
				uids = append(uids, e.UID)
			}
			return uids
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		for _, step := range []struct {
			after     time.Duration
			delivered uint32
			want      []uint32
		}{
			{3 * time.Hour, 3, []uint32{1, 2, 3, 4, 5}}, // none is a day old
			{2 * time.Hour, 3, []uint32{2, 4, 5}},       // 2 is parked, 4 waits
			{48 * time.Hour, 3, []uint32{2, 4, 5}},      // 5 waits behind it
			{time.Hour, 5, []uint32{2}},
		} {
			gatewaytest.Must(t, b.Delivered(step.delivered))
			time.Sleep(step.after)
			synctest.Wait()
			if diff := cmp.Diff(step.want, left()); diff != "" {
				t.Errorf("after %s: %s", step.after, diff)
			}
		}
		if n := len(box(t, s, forever).Snapshot().Entries); n != 5 {
			t.Errorf("%d messages of the VM that keeps all", n)
		}
		cancel()
		<-done
	})
}

// What is removed is so after a start from the log alone, and many go in changes of bounded length.
func TestKeepOfManyIsDurable(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	s.Obey(func(gateway.ID) gateway.MailSettings { return gateway.MailSettings{Keep: time.Hour} })
	b := box(t, s, vm)
	const many = 2*keepBatch + 1
	ids := make([]gateway.ID, many)
	for i := range ids {
		ids[i] = vm
	}
	mustPut(t, s, "x", ids...)
	gatewaytest.Must(t, b.Delivered(many))
	before, _ := b.Changed()
	s.expire(t.Context(), time.Now().Add(2*time.Hour))
	if after, _ := b.Changed(); after != before+3 {
		t.Errorf("%d changes, want 3", after-before)
	}
	s.Close()
	removeIndex(t, dir, vm)
	if n := len(box(t, open(t, dir), vm).Snapshot().Entries); n != 0 {
		t.Errorf("%d messages are back", n)
	}
}

func removeIndex(t *testing.T, dir string, vm gateway.ID) {
	t.Helper()
	gatewaytest.Must(t, os.Remove(filepath.Join(dir, vm.String(), "log", indexName)))
}
