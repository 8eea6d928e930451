package controltest

import (
	"context"
	"slices"
	"sync"
	"time"

	"lodge/gateway"
)

// fakeCheckpoints implements api.Checkpoints: each has 4 MiB.
type fakeCheckpoints struct {
	host *Host

	mu  sync.Mutex
	all []gateway.Checkpoint
}

func (f *fakeCheckpoints) Checkpoint(_ context.Context, id gateway.ID, r gateway.CheckpointRequest) (gateway.Checkpoint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := r.Name
	if name == "" {
		name = string(r.Kind) + "-2026-11-29T16-30-05"
	}
	if err := gateway.CheckCheckpointName(name); err != nil {
		return gateway.Checkpoint{}, err
	}
	c := gateway.Checkpoint{ID: gateway.CheckpointID(gateway.NewID().String()), VM: id, Name: name, Kind: r.Kind, Quiesced: r.Quiesce, Created: time.Unix(1_790_000_000, 0).UTC()}
	f.all = append(f.all, c)
	return c, nil
}

func (f *fakeCheckpoints) Checkpoints(id gateway.ID) (of []gateway.Checkpoint, bytes []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		if c.VM == id {
			of, bytes = append(of, c), append(bytes, 4<<20)
		}
	}
	return of, bytes
}

func (f *fakeCheckpoints) RemoveCheckpoint(_ context.Context, _ gateway.ID, which gateway.CheckpointID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = slices.DeleteFunc(f.all, func(c gateway.Checkpoint) bool { return c.ID == which })
	return nil
}

func (f *fakeCheckpoints) Rollback(ctx context.Context, id gateway.ID, checkpoint string, _ bool) (gateway.Checkpoint, error) {
	of, _ := f.Checkpoints(id)
	if !slices.ContainsFunc(of, func(c gateway.Checkpoint) bool { return checkpoint == "" || c.Name == checkpoint }) {
		return gateway.Checkpoint{}, gateway.Errorf(gateway.KindNotFound, "there is no checkpoint named %q", checkpoint)
	}
	return f.Checkpoint(ctx, id, gateway.CheckpointRequest{Kind: gateway.CheckpointUndo})
}

func (f *fakeCheckpoints) Fork(ctx context.Context, _ gateway.ID, _ string, spec gateway.Spec, progress func(gateway.Progress)) (gateway.VM, error) {
	return f.host.New(ctx, spec, progress)
}
