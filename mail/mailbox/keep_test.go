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
		time.Sleep(20 * time.Hour) //nolint:forbidigo // of the bubble's clock
		mustPut(t, s, "x", vm, forever)
		gatewaytest.Must(t, b.Park(2))
		gatewaytest.Must(t, b.Delivered(3))
		gatewaytest.Must(t, box(t, s, forever).Delivered(5))
		left := func() (uids []uint32) {
			for _, e := range b.Snapshot().Entries.All() {
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
			time.Sleep(step.after) //nolint:forbidigo // of the bubble's clock
			synctest.Wait()
			if diff := cmp.Diff(step.want, left()); diff != "" {
				t.Errorf("after %s: %s", step.after, diff)
			}
		}
		if n := box(t, s, forever).Snapshot().Entries.Len(); n != 5 {
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
	const many = 2*removeBatch + 1
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
	if n := box(t, open(t, dir), vm).Snapshot().Entries.Len(); n != 0 {
		t.Errorf("%d messages are back", n)
	}
}

func removeIndex(t *testing.T, dir string, vm gateway.ID) {
	t.Helper()
	gatewaytest.Must(t, os.Remove(filepath.Join(dir, vm.String(), "log", indexName)))
}

// Remove removes what is named, all or none, from the log too; mail that waits only on request.
func TestRemove(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	b := box(t, s, vm)
	var ids []string
	for range 6 {
		ids = append(ids, mustPut(t, s, "x", vm)...)
	}
	gatewaytest.Must(t, b.Delivered(4))
	size := entries(b.Snapshot().Entries)[0].Bytes
	for _, row := range []struct {
		name string
		what gateway.MailRemoval
		want gateway.MailRemoved
		kind gateway.Kind // of the error
		left int
	}{
		{"nothing", gateway.MailRemoval{}, gateway.MailRemoved{}, "", 6},
		{"unknown", gateway.MailRemoval{QueueIDs: []string{ids[0], "none"}, Waiting: true}, gateway.MailRemoved{}, gateway.KindNotFound, 6},
		{"waiting", gateway.MailRemoval{QueueIDs: []string{ids[0], ids[5]}}, gateway.MailRemoved{}, gateway.KindConflict, 6},
		{"all, some waiting", gateway.MailRemoval{All: true}, gateway.MailRemoved{}, gateway.KindConflict, 6},
		{"before all", gateway.MailRemoval{Before: time.Now().Add(-time.Hour)}, gateway.MailRemoved{}, "", 6},
		{"one", gateway.MailRemoval{QueueIDs: []string{ids[0], ids[0]}}, gateway.MailRemoved{Messages: 1, Bytes: size}, "", 5},
		{"again", gateway.MailRemoval{QueueIDs: []string{ids[0]}}, gateway.MailRemoved{}, gateway.KindNotFound, 5},
		{"one that waits", gateway.MailRemoval{QueueIDs: []string{ids[1], ids[5]}, Waiting: true}, gateway.MailRemoved{Messages: 2, Waiting: 1, Bytes: 2 * size}, "", 3},
		{"before now", gateway.MailRemoval{Before: time.Now().Add(time.Hour), Waiting: true}, gateway.MailRemoved{Messages: 3, Waiting: 1, Bytes: 3 * size}, "", 0},
	} {
		got, err := b.Remove(t.Context(), row.what)
		kind := gateway.KindOf(err)
		if err == nil {
			kind = ""
		}
		if got != row.want || kind != row.kind || b.Snapshot().Entries.Len() != row.left {
			t.Errorf("%s: %+v, %v; %d left, want %d", row.name, got, err, b.Snapshot().Entries.Len(), row.left)
		}
	}
	s.Close()
	removeIndex(t, dir, vm)
	if n := box(t, open(t, dir), vm).Snapshot().Entries.Len(); n != 0 {
		t.Errorf("%d messages are back", n)
	}
}
