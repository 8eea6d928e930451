package gateway

import "context"

// CheckpointID names a checkpoint of a VM: the text of a UUID, which is never used again.
type CheckpointID string

// Part is something kept for a VM beside its disk that the VM's checkpoints cover: its mail, its
// buckets. Each method may be called for a VM of which the Part has nothing as yet, and at the same
// time for different VMs. Calls for one VM come one after the other. All that a method has done is
// synced when it returns nil.
type Part interface {
	// Mark records the VM's present state under id, and holds the VM's writes back until release is
	// called: they wait, or are refused with "try again", and none is lost. Release is called once,
	// within seconds, also if the checkpoint fails; it never fails. After an error nothing is held
	// back, and release is nil. KindConflict: the id is marked already.
	Mark(ctx context.Context, vm ID, id CheckpointID) (release func(), err error)
	// Rewind makes the marked state the present one. Nothing that was accepted is deleted for good by
	// it: mail that came after the mark is delivered again. It may be repeated, after success and
	// after a crash at any moment, and ends in the same state. KindNotFound: there is no such mark.
	Rewind(ctx context.Context, vm ID, id CheckpointID) error
	// Fork gives the VM to, which has nothing as yet, the state that vm had at the mark: its buckets,
	// copied on write, and its mailbox, of which none of the old mail is delivered again. It may be
	// repeated as Rewind may. KindNotFound: there is no such mark.
	Fork(ctx context.Context, vm ID, id CheckpointID, to ID) error
	// Drop removes a mark. It is no error when there is none.
	Drop(ctx context.Context, vm ID, id CheckpointID) error
	// Marks returns the ids of a VM's marks. Those of which no checkpoint was completed are dropped
	// when the daemon starts.
	Marks(ctx context.Context, vm ID) ([]CheckpointID, error)
}
