// Package checkpoint keeps the list of VMs' checkpoints, and decides which of them are due and which
// have expired.
//
// A checkpoint is in the list once it is complete, and its record is on disk before it is in the list.
// This package never touches a disk, a mark or a domain: package vmhost makes and removes what a
// checkpoint consists of.
package checkpoint

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"lodge/gateway"
)

// Records keep the checkpoints. Each call returns once the change is synced; gateway/store is the
// implementation.
type Records interface {
	// All returns every checkpoint, in the order of their making.
	All(ctx context.Context) ([]gateway.Checkpoint, error)
	Create(ctx context.Context, c gateway.Checkpoint) error
	// Delete deletes a checkpoint. A missing one is no error.
	Delete(ctx context.Context, id gateway.CheckpointID) error
}

// List has the checkpoints of a host. It is safe for concurrent use.
type List struct {
	records Records

	mu  sync.Mutex // held while records change
	all map[gateway.ID][]gateway.Checkpoint
}

// Open reads the checkpoints.
func Open(ctx context.Context, records Records) (*List, error) {
	rows, err := records.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	l := &List{records: records, all: map[gateway.ID][]gateway.Checkpoint{}}
	for _, c := range rows {
		l.all[c.VM] = append(l.all[c.VM], c)
	}
	return l, nil
}

// Of returns the checkpoints of a VM, in the order of their making.
func (l *List) Of(vm gateway.ID) []gateway.Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all[vm])
}

// Layers returns the layers that checkpoints name.
func (l *List) Layers() map[gateway.LayerID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	layers := map[gateway.LayerID]bool{}
	for _, of := range l.all {
		for _, c := range of {
			layers[c.Layer] = true
		}
	}
	return layers
}

// Find returns the checkpoint that has a name or an id. The empty name is the newest that was not made
// by a rollback or for a fork. KindNotFound: there is none.
func (l *List) Find(vm gateway.ID, name string) (gateway.Checkpoint, error) {
	for _, c := range slices.Backward(l.Of(vm)) {
		latest := name == "" && c.Kind != gateway.CheckpointUndo && c.Kind != gateway.CheckpointFork
		if latest || name != "" && (c.Name == name || string(c.ID) == name) {
			return c, nil
		}
	}
	if name == "" {
		return gateway.Checkpoint{}, gateway.Errorf(gateway.KindNotFound, "there is no checkpoint yet").WithHint("Make one first: lodge checkpoint VM")
	}
	return gateway.Checkpoint{}, gateway.Errorf(gateway.KindNotFound, "there is no checkpoint named %.100q", name).
		WithHint("lodge checkpoints VM lists them.")
}

// Check returns the name of a new checkpoint: the requested one, or one made of the kind and the time.
// Errors: KindInvalid for a name that cannot be, KindTaken for one in use, KindConflict when there are
// too many.
func (l *List) Check(vm gateway.ID, r gateway.CheckpointRequest, now time.Time) (string, error) {
	of := l.Of(vm)
	inside, memories := 0, 0
	for _, c := range of {
		if c.Kind == gateway.CheckpointInside {
			inside++
			if c.Memory != "" {
				memories++
			}
		}
	}
	switch {
	case r.Memory && r.Quiesce:
		return "", gateway.Invalid("a checkpoint with memory needs no frozen file systems").WithHint("Choose one of --memory and --quiesce.")
	case r.Memory && r.Kind == gateway.CheckpointInside && memories >= gateway.MaxMemoriesInside:
		return "", gateway.Errorf(gateway.KindConflict, "the VM itself has made %d checkpoints with memory, the most that it can", memories).
			WithHint("Remove some of them first.")
	case len(of) >= gateway.MaxCheckpoints:
		return "", gateway.Errorf(gateway.KindConflict, "there are %d checkpoints, the most that a VM can have", len(of)).
			WithHint("Remove some first: lodge checkpoint rm VM NAME")
	case r.Kind == gateway.CheckpointInside && inside >= gateway.MaxCheckpointsInside:
		return "", gateway.Errorf(gateway.KindConflict, "the VM itself has made %d checkpoints, the most that it can", inside).
			WithHint("Remove some of them first.")
	case r.Name == "":
		return free(of, r.Kind, now), nil
	}
	if err := gateway.CheckCheckpointName(r.Name); err != nil {
		return "", err //nolint:wrapcheck // its text is for people
	}
	if taken(of, r.Name) {
		return "", gateway.Errorf(gateway.KindTaken, "there is a checkpoint named %q already", r.Name).
			WithHint("Choose another name, or remove that one: lodge checkpoint rm VM %s", r.Name)
	}
	return r.Name, nil
}

// free makes a name that is not in use.
func free(of []gateway.Checkpoint, kind gateway.CheckpointKind, now time.Time) string {
	stem := now.UTC().Format("2006-01-02T15-04-05")
	switch kind {
	case gateway.CheckpointUndo:
		stem = "before-rollback-" + stem
	case gateway.CheckpointFork:
		stem = "fork-" + stem
	}
	name := stem
	for n := 2; taken(of, name); n++ {
		name = fmt.Sprintf("%s.%d", stem, n)
	}
	return name
}

func taken(of []gateway.Checkpoint, name string) bool {
	return slices.ContainsFunc(of, func(c gateway.Checkpoint) bool { return c.Name == name || string(c.ID) == name })
}

// Add records a checkpoint, which is complete.
func (l *List) Add(ctx context.Context, c gateway.Checkpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.records.Create(ctx, c); err != nil {
		return fmt.Errorf("record checkpoint: %w", err)
	}
	l.all[c.VM] = append(l.all[c.VM], c)
	return nil
}

// Remove removes a checkpoint from the list. A missing one is no error.
func (l *List) Remove(ctx context.Context, c gateway.Checkpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.records.Delete(ctx, c.ID); err != nil {
		return fmt.Errorf("remove checkpoint: %w", err)
	}
	l.all[c.VM] = slices.DeleteFunc(slices.Clone(l.all[c.VM]), func(other gateway.Checkpoint) bool { return other.ID == c.ID })
	if len(l.all[c.VM]) == 0 {
		delete(l.all, c.VM)
	}
	return nil
}

// Due reports whether the next scheduled checkpoint is to be made.
func Due(of []gateway.Checkpoint, plan gateway.CheckpointPlan, now time.Time) bool {
	if plan.Every == 0 {
		return false
	}
	for _, c := range slices.Backward(of) {
		if c.Kind == gateway.CheckpointScheduled {
			return now.Sub(c.Created) >= plan.Every || c.Created.After(now) // the clock may have been set back
		}
	}
	return true
}

// Expired returns the scheduled checkpoints past the number that the plan keeps, the oldest first. Those
// that somebody asked for never expire, nor do any without a plan.
func Expired(of []gateway.Checkpoint, plan gateway.CheckpointPlan) []gateway.Checkpoint {
	if plan.Every == 0 {
		return nil
	}
	var scheduled []gateway.Checkpoint
	for _, c := range of {
		if c.Kind == gateway.CheckpointScheduled {
			scheduled = append(scheduled, c)
		}
	}
	return scheduled[:max(0, len(scheduled)-plan.Keep)]
}

// Restored returns the shares of a VM after a rollback: those of the checkpoint. A port that is not open
// to links now stays closed to them, because links that were removed must never open it again.
func Restored(now gateway.VM, then []gateway.Share) []gateway.Share {
	return slices.DeleteFunc(slices.Clone(then), func(s gateway.Share) bool {
		return s.Visibility == gateway.Link && now.Visibility(s.Port) != gateway.Link
	})
}

// RestoredBuckets is Restored for the shares of buckets.
func RestoredBuckets(now gateway.VM, then []gateway.BucketShare) []gateway.BucketShare {
	return slices.DeleteFunc(slices.Clone(then), func(s gateway.BucketShare) bool {
		return s.Visibility == gateway.Link && now.S3.Share(s.Bucket).Visibility != gateway.Link
	})
}
