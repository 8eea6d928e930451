package checkpoint_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/checkpoint"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// add makes a checkpoint as vmhost does.
func add(t *testing.T, l *checkpoint.List, vm gateway.ID, r gateway.CheckpointRequest, now time.Time) (gateway.Checkpoint, error) {
	t.Helper()
	name, err := l.Check(vm, r, now)
	if err != nil {
		return gateway.Checkpoint{}, err
	}
	c := gateway.Checkpoint{ID: gateway.CheckpointID(gateway.NewID().String()), VM: vm, Name: name, Kind: r.Kind, Layer: gateway.LayerID("layer of " + name), Created: now}
	if r.Memory {
		c.Memory = "tcg"
	}
	return c, l.Add(t.Context(), c)
}

func names(of []gateway.Checkpoint) (names []string) {
	for _, c := range of {
		names = append(names, c.Name)
	}
	return names
}

func TestList(t *testing.T) {
	records, vm, other := new(gatewaytest.Checkpoints), gateway.NewID(), gateway.NewID()
	l, err := checkpoint.Open(t.Context(), records)
	gatewaytest.Must(t, err)
	if _, err := l.Find(vm, ""); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("the newest of none: %v", err)
	}
	for _, r := range []gateway.CheckpointRequest{
		{Name: "first", Kind: gateway.CheckpointAsked}, {Kind: gateway.CheckpointAsked}, {Kind: gateway.CheckpointScheduled}, {Kind: gateway.CheckpointUndo},
	} {
		_, err := add(t, l, vm, r, noon)
		gatewaytest.Must(t, err)
	}
	want := []string{"first", "2026-11-29T12-00-00", "2026-11-29T12-00-00.2", "before-rollback-2026-11-29T12-00-00"}
	again, err := checkpoint.Open(t.Context(), records)
	gatewaytest.Must(t, err)
	for _, l := range []*checkpoint.List{l, again} {
		if diff := cmp.Diff(want, names(l.Of(vm))); diff != "" || len(l.Of(other)) != 0 {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	for name, want := range map[string]string{"": want[2], "first": "first", string(l.Of(vm)[1].ID): want[1], want[3]: want[3]} {
		if got, err := l.Find(vm, name); err != nil || got.Name != want {
			t.Errorf("%q is %q, %v", name, got.Name, err)
		}
	}
	for _, name := range []string{"second", "FIRST", "layer of first"} {
		if _, err := l.Find(vm, name); gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := l.Find(other, "first"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("another VM's: %v", err)
	}
	first, _ := l.Find(vm, "first")
	gatewaytest.Must(t, errors.Join(l.Remove(t.Context(), first), l.Remove(t.Context(), first)))
	if l.Layers()[first.Layer] || len(l.Layers()) != 3 {
		t.Errorf("layers: %v", l.Layers())
	}
}

func TestCheckRefuses(t *testing.T) {
	l, err := checkpoint.Open(t.Context(), new(gatewaytest.Checkpoints))
	gatewaytest.Must(t, err)
	vm := gateway.NewID()
	c, err := add(t, l, vm, gateway.CheckpointRequest{Name: "first"}, noon)
	gatewaytest.Must(t, err)
	for name, want := range map[string]gateway.Kind{"first": gateway.KindTaken, string(c.ID): gateway.KindTaken, "a/b": gateway.KindInvalid} {
		if _, err := l.Check(vm, gateway.CheckpointRequest{Name: name}, noon); gateway.KindOf(err) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	for i := range gateway.MaxCheckpoints - 1 {
		kind := gateway.CheckpointAsked
		if i < gateway.MaxCheckpointsInside {
			kind = gateway.CheckpointInside
		}
		if i == gateway.MaxCheckpointsInside {
			if _, err := l.Check(vm, gateway.CheckpointRequest{Kind: gateway.CheckpointInside}, noon); gateway.KindOf(err) != gateway.KindConflict {
				t.Errorf("too many from inside: %v", err)
			}
		}
		_, err := add(t, l, vm, gateway.CheckpointRequest{Name: fmt.Sprint("c", i), Kind: kind}, noon)
		gatewaytest.Must(t, err)
	}
	if _, err := l.Check(vm, gateway.CheckpointRequest{}, noon); gateway.KindOf(err) != gateway.KindConflict || !strings.Contains(err.Error(), "1000") {
		t.Errorf("too many: %v", err)
	}
}

// Memory is large: a VM itself keeps few, and no frozen file systems with it.
func TestCheckMemory(t *testing.T) {
	l, err := checkpoint.Open(t.Context(), new(gatewaytest.Checkpoints))
	gatewaytest.Must(t, err)
	vm := gateway.NewID()
	if _, err := l.Check(vm, gateway.CheckpointRequest{Memory: true, Quiesce: true}, noon); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("both: %v", err)
	}
	r := gateway.CheckpointRequest{Memory: true, Kind: gateway.CheckpointInside}
	for range gateway.MaxMemoriesInside {
		_, err := add(t, l, vm, r, noon)
		gatewaytest.Must(t, err)
	}
	if _, err := l.Check(vm, r, noon); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("too many from inside: %v", err)
	}
	for _, r := range []gateway.CheckpointRequest{{Memory: true, Kind: gateway.CheckpointAsked}, {Kind: gateway.CheckpointInside}} {
		if _, err := l.Check(vm, r, noon); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// Scheduled checkpoints are made when it is time and expire from the oldest; others stay.
func TestSchedule(t *testing.T) {
	plan := gateway.CheckpointPlan{Every: time.Hour, Keep: 2}
	var of []gateway.Checkpoint
	for hour, kind := range []gateway.CheckpointKind{gateway.CheckpointScheduled, gateway.CheckpointAsked, gateway.CheckpointScheduled, gateway.CheckpointScheduled, gateway.CheckpointUndo} {
		of = append(of, gateway.Checkpoint{Name: fmt.Sprint(hour), Kind: kind, Created: noon.Add(time.Duration(hour) * time.Hour)})
	}
	last := noon.Add(3 * time.Hour)
	for _, row := range []struct {
		of   []gateway.Checkpoint
		plan gateway.CheckpointPlan
		now  time.Time
		want bool
	}{
		{nil, plan, noon, true},
		{of[1:2], plan, noon, true}, // one that was asked for does not count
		{of, plan, last.Add(59 * time.Minute), false},
		{of, plan, last.Add(time.Hour), true},
		{of, plan, last.Add(-time.Minute), true},
		{of, gateway.CheckpointPlan{}, last.Add(time.Hour), false},
	} {
		if got := checkpoint.Due(row.of, row.plan, row.now); got != row.want {
			t.Errorf("due at %s with %v: %v", row.now, row.plan, got)
		}
	}
	for keep, want := range map[int][]string{1: {"0", "2"}, 2: {"0"}, 3: nil, 9: nil} {
		if diff := cmp.Diff(want, names(checkpoint.Expired(of, gateway.CheckpointPlan{Every: time.Hour, Keep: keep}))); diff != "" {
			t.Errorf("keep %d, -want +got:\n%s", keep, diff)
		}
	}
	if got := checkpoint.Expired(of, gateway.CheckpointPlan{}); got != nil {
		t.Errorf("expired without a plan: %v", got)
	}
}

func TestRestoredShares(t *testing.T) {
	then := []gateway.Share{{Port: 80, Visibility: gateway.Public}, {Port: 81, Visibility: gateway.Link}, {Port: 82, Visibility: gateway.Link}}
	now := gateway.VM{Shares: []gateway.Share{{Port: 82, Visibility: gateway.Link}, {Port: 83, Visibility: gateway.Public}}}
	if diff := cmp.Diff([]gateway.Share{then[0], then[2]}, checkpoint.Restored(now, then)); diff != "" || then[1].Port != 81 {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRestoredBucketShares(t *testing.T) {
	share := func(bucket string, v gateway.Visibility) gateway.BucketShare {
		return gateway.BucketShare{Bucket: bucket, Share: gateway.Share{Visibility: v}}
	}
	then := []gateway.BucketShare{share("a", gateway.Public), share("b", gateway.Link), share("c", gateway.Link)}
	now := gateway.VM{S3: gateway.S3Settings{Shares: []gateway.BucketShare{share("c", gateway.Link), share("d", gateway.Public)}}}
	if diff := cmp.Diff([]gateway.BucketShare{then[0], then[2]}, checkpoint.RestoredBuckets(now, then)); diff != "" || then[1].Bucket != "b" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := checkpoint.RestoredBuckets(now, nil); len(got) != 0 {
		t.Errorf("of a checkpoint without any: %v", got)
	}
}
