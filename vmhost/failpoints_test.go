package vmhost

import (
	"context"

	"lodge/gateway"
	"lodge/vmhost/checkpoint"
	"lodge/vmhost/layers"
)

// failpoint has the daemon killed before f, or after it.
func failpoint(at func(string), name string, f func() error) error {
	at("before " + name)
	err := f()
	at("after " + name)
	return err
}

type failingVMs struct {
	gateway.Records

	at func(string)
}

func (f failingVMs) Create(ctx context.Context, m gateway.VM) (made gateway.VM, err error) {
	err = failpoint(f.at, "a new VM", func() (err error) {
		made, err = f.Records.Create(ctx, m)
		return err
	})
	return made, err
}

func (f failingVMs) Save(ctx context.Context, m gateway.VM) error {
	return failpoint(f.at, "a VM", func() error { return f.Records.Save(ctx, m) })
}

func (f failingVMs) Delete(ctx context.Context, id gateway.ID) error {
	return failpoint(f.at, "no VM", func() error { return f.Records.Delete(ctx, id) })
}

type failingLayers struct {
	layers.Records

	at func(string)
}

func (f failingLayers) Put(ctx context.Context, all ...gateway.Layer) error {
	return failpoint(f.at, "a layer", func() error { return f.Records.Put(ctx, all...) })
}

func (f failingLayers) Delete(ctx context.Context, id gateway.LayerID) error {
	return failpoint(f.at, "no layer", func() error { return f.Records.Delete(ctx, id) })
}

type failingCheckpoints struct {
	checkpoint.Records

	at func(string)
}

func (f failingCheckpoints) Create(ctx context.Context, c gateway.Checkpoint) error {
	return failpoint(f.at, "a checkpoint", func() error { return f.Records.Create(ctx, c) })
}

func (f failingCheckpoints) Delete(ctx context.Context, id gateway.CheckpointID) error {
	return failpoint(f.at, "no checkpoint", func() error { return f.Records.Delete(ctx, id) })
}

type failingPart struct {
	gateway.Part

	at func(string)
}

func (f failingPart) Mark(ctx context.Context, vm gateway.ID, id gateway.CheckpointID) (release func(), err error) {
	err = failpoint(f.at, "a mark", func() (err error) {
		release, err = f.Part.Mark(ctx, vm, id)
		return err
	})
	return release, err
}

func (f failingPart) Rewind(ctx context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	return failpoint(f.at, "a rewind", func() error { return f.Part.Rewind(ctx, vm, id) })
}

func (f failingPart) Fork(ctx context.Context, vm gateway.ID, id gateway.CheckpointID, to gateway.ID) error {
	return failpoint(f.at, "a fork", func() error { return f.Part.Fork(ctx, vm, id, to) })
}

func (f failingPart) Drop(ctx context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	return failpoint(f.at, "no mark", func() error { return f.Part.Drop(ctx, vm, id) })
}
