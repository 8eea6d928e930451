package gateway

import (
	"context"
	"strings"
	"time"
)

// CheckpointID names a checkpoint of a VM: the text of a UUID, which is never used again.
type CheckpointID string

// Checkpoint is the state of a VM at one moment: its disk, the marks of its Parts, and the shares
// of its ports and buckets. It is recorded once all of that is complete; without this record there
// is no checkpoint.
type Checkpoint struct {
	ID       CheckpointID
	VM       ID
	Name     string // see CheckCheckpointName; no two of a VM have the same
	Kind     CheckpointKind
	Layer    LayerID // the disk: from then on it never changes
	Quiesced bool    // the guest's file systems were frozen meanwhile
	Memory   string  // what the host has to be like to resume the memory, which is kept too; empty: none is
	Shares   []Share // of the VM; never changed in place
	Created  time.Time

	BucketShares []BucketShare // of the VM; never changed in place. Those of earlier versions are none
}

// CheckpointKind is who made a checkpoint, and so what may remove it.
type CheckpointKind string

// The kinds.
const (
	CheckpointAsked     CheckpointKind = "asked"     // a person asked for it
	CheckpointInside    CheckpointKind = "inside"    // the VM itself did
	CheckpointScheduled CheckpointKind = "scheduled" // it expires
	CheckpointUndo      CheckpointKind = "undo"      // made by a rollback, of the state that it left
	CheckpointFork      CheckpointKind = "fork"      // made for a fork, and removed after it
)

// Limits on checkpoints.
const (
	MaxCheckpoints       = 1000 // of a VM
	MaxCheckpointsInside = 100  // of those, made by the VM itself
	MaxMemoriesInside    = 3    // of those, with memory
	maxCheckpointName    = 64   // bytes
)

// CheckCheckpointName checks that a checkpoint can have a name (else KindInvalid): 1 to 64 letters,
// digits, dots, dashes and underscores, of which the first is a letter or a digit.
func CheckCheckpointName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if name == "" || len(name) > maxCheckpointName || strings.Trim(name, letters+"._-") != "" || !strings.Contains(letters, name[:1]) {
		return Invalid("not a name of a checkpoint: %.100q", name).
			WithHint("Use 1 to %d letters, digits, dots, dashes and underscores, such as before-upgrade.", maxCheckpointName)
	}
	return nil
}

// CheckpointRequest is what is asked of a checkpoint.
type CheckpointRequest struct {
	Name    string `json:"name,omitempty"`    // without one it is named by the time
	Quiesce bool   `json:"quiesce,omitempty"` // freeze the file systems of the running guest, for 2 s at most, by its guest agent
	Memory  bool   `json:"memory,omitempty"`  // keep the memory of the running guest too; not with Quiesce

	Kind CheckpointKind `json:"-"`
}

// CheckpointPlan is a schedule of checkpoints. The zero value is none.
type CheckpointPlan struct {
	Every time.Duration `json:"every,omitempty"` // between two of them
	Keep  int           `json:"keep,omitempty"`  // the newest ones that stay
}

// Limits of a CheckpointPlan.
const (
	MinCheckpointEvery = time.Minute
	MaxCheckpointEvery = 366 * 24 * time.Hour
	MaxCheckpointKeep  = MaxCheckpoints / 2
)

// Check checks a plan that is not zero.
func (p CheckpointPlan) Check() error {
	switch {
	case p.Every < MinCheckpointEvery || p.Every > MaxCheckpointEvery:
		return Invalid("checkpoints cannot be made every %s", p.Every).WithHint("Choose 1m to 8784h, such as 1h.")
	case p.Keep < 1 || p.Keep > MaxCheckpointKeep:
		return Invalid("%d scheduled checkpoints cannot be kept", p.Keep).WithHint("Choose 1 to %d.", MaxCheckpointKeep)
	}
	return nil
}

// Rollback is one that has begun: it is finished, whatever happens.
type Rollback struct {
	To     CheckpointID `json:"to"`
	Disk   LayerID      `json:"disk"`   // over that of the checkpoint; it becomes the VM's
	Shares []Share      `json:"shares"` // which the VM has afterwards

	BucketShares []BucketShare `json:"bucket_shares,omitempty"` // as above
	ShareRev     uint64        `json:"share_rev,omitempty"`     // of the VM when it began: if that has changed, the shares stay as they are then
}

// Part is something kept for a VM beside its disk that the VM's checkpoints cover: its mail, its
// buckets. Each method may be called for a VM of which the Part has nothing as yet, and at the same
// time for different VMs. Calls for one VM come one after the other. All that a method has done is
// synced when it returns nil.
type Part interface {
	// Mark records the VM's present state under id, and holds the VM's writes back until release is
	// called: they wait, or are refused with "try again", and none is lost. Release is called once,
	// also if the checkpoint fails; it never fails. A hold ends by itself only after hold.DefaultLimit;
	// a checkpoint that is not complete earlier fails. After an error nothing is held
	// back, and release is nil. KindConflict: the id is marked already.
	Mark(ctx context.Context, vm ID, id CheckpointID) (release func(), err error)
	// Rewind makes the marked state the present one. Nothing that was accepted is deleted for good by
	// it: mail that came after the mark is delivered again. It may be repeated, after success and
	// after a crash at any moment, and ends in the same state. KindNotFound: there is no such mark.
	Rewind(ctx context.Context, vm ID, id CheckpointID) error
	// Fork gives the VM to, which has nothing as yet, the state that vm had at the mark: its buckets,
	// copied on write. Its mailbox is empty: the old mail is on its disk, and none of it is
	// delivered again. It may be repeated as Rewind may. KindNotFound: there is no such mark.
	Fork(ctx context.Context, vm ID, id CheckpointID, to ID) error
	// Drop removes a mark. It is no error when there is none.
	Drop(ctx context.Context, vm ID, id CheckpointID) error
	// Marks returns the ids of a VM's marks. Those of which no checkpoint was completed are dropped
	// when the daemon starts.
	Marks(ctx context.Context, vm ID) ([]CheckpointID, error)
}
