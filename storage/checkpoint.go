package storage

import (
	"context"
	"errors"

	"lodge/gateway"
	"lodge/storage/s3"
	"lodge/storage/store"
)

// A Server is a part of the VMs' checkpoints. A mark is a snapshot of all buckets of a VM with their objects and
// settings. Rewind aborts uploads in progress. A fork shares the files of its source, and they count for both.
var _ gateway.Part = (*Server)(nil)

// Mark implements gateway.Part. Writes wait until release, and get SlowDown if that takes seconds.
func (s *Server) Mark(_ context.Context, vm gateway.ID, id gateway.CheckpointID) (release func(), err error) {
	made := make(chan func(), 1)
	err = s.checkpoint(id, func() error {
		release, err := s.objects.Snapshot(vm, string(id))
		if err == nil {
			made <- release
		}
		return err
	})
	if err != nil { // if the store has failed, Snapshot may go on: then its hold ends by itself
		return nil, err
	}
	return <-made, nil
}

// Rewind implements gateway.Part. The effort is that of the changes since the mark.
func (s *Server) Rewind(_ context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	return s.checkpoint(id, func() error { return s.objects.Restore(vm, string(id)) })
}

// Fork implements gateway.Part. What opens the buckets to everyone is copied, and has no effect in
// the fork until its public access block is removed.
func (s *Server) Fork(_ context.Context, vm gateway.ID, id gateway.CheckpointID, to gateway.ID) error {
	return s.checkpoint(id, func() error { return s.objects.ForkWith(vm, string(id), to, s3.BlockPublic) })
}

// Drop implements gateway.Part.
func (s *Server) Drop(_ context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	err := s.checkpoint(id, func() error { return s.objects.Drop(vm, string(id)) })
	if gateway.KindOf(err) == gateway.KindNotFound {
		return nil
	}
	return err
}

// Marks implements gateway.Part.
func (s *Server) Marks(_ context.Context, vm gateway.ID) (ids []gateway.CheckpointID, err error) {
	err = s.objects.UnlessFailed(func() error {
		names, err := s.objects.Snapshots(vm)
		for _, name := range names {
			ids = append(ids, gateway.CheckpointID(name))
		}
		return err
	})
	return ids, err
}

// checkpoint calls f, which may never return once the store has failed. It is the one table from the store's errors
// over checkpoints to kinds.
func (s *Server) checkpoint(id gateway.CheckpointID, f func() error) error {
	if id == "" {
		return gateway.Invalid("the checkpoint has no id")
	}
	err := s.objects.UnlessFailed(f)
	switch {
	case errors.Is(err, store.ErrNoSnapshot):
		return gateway.Errorf(gateway.KindNotFound, "the buckets have no mark of that checkpoint").Because(err)
	case errors.Is(err, store.ErrRemoved):
		return gateway.Errorf(gateway.KindNotFound, "the VM is being removed").Because(err)
	case errors.Is(err, store.ErrSnapshotExists):
		return gateway.Errorf(gateway.KindConflict, "the buckets have a mark of that checkpoint already").Because(err)
	case errors.Is(err, store.ErrNotEmpty):
		return gateway.Errorf(gateway.KindConflict, "the fork has buckets already").Because(err)
	case errors.Is(err, store.ErrUnfinished):
		return gateway.Errorf(gateway.KindConflict, "another rollback of the buckets has not ended").
			WithHint("Repeat that rollback; its error is in the log.").Because(err)
	case errors.Is(err, store.ErrFull):
		return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").Because(err)
	}
	return err
}
