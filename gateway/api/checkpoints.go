package api

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"lodge/gateway"
)

// Checkpoints makes checkpoints of VMs, and goes back to them; vmhost.Host is one.
type Checkpoints interface {
	// Checkpoint records the state of a VM. It is complete when Checkpoint returns nil; otherwise there is none.
	Checkpoint(ctx context.Context, id gateway.ID, r gateway.CheckpointRequest) (gateway.Checkpoint, error)
	// Checkpoints returns a VM's checkpoints, the oldest first, and how many bytes of the disk were written up to each
	// since the one before.
	Checkpoints(id gateway.ID) ([]gateway.Checkpoint, []int64)
	// RemoveCheckpoint removes one; it is no error when it is gone.
	RemoveCheckpoint(ctx context.Context, id gateway.ID, which gateway.CheckpointID) error
	// Rollback gives a VM the state of a checkpoint, by its name or id; the empty one is the newest. It makes a
	// checkpoint of the state that it leaves first, and returns that. From inside it returns before the VM is ended.
	Rollback(ctx context.Context, id gateway.ID, checkpoint string, inside bool) (gateway.Checkpoint, error)
	// Fork makes a VM with the state of a checkpoint; the empty one is the present state. After an error, or when ctx
	// ends, nothing of the new VM is left.
	Fork(ctx context.Context, id gateway.ID, checkpoint string, spec gateway.Spec, progress func(gateway.Progress)) (gateway.VM, error)
}

// Checkpoint is a checkpoint as every face shows it.
type Checkpoint struct {
	ID       gateway.CheckpointID   `json:"id"` // never used again
	Name     string                 `json:"name"`
	Kind     gateway.CheckpointKind `json:"kind"`     // "asked", "inside" (by the VM itself), "scheduled" (it expires), "undo" (by a rollback) or "fork"
	Quiesced bool                   `json:"quiesced"` // the guest's file systems were frozen meanwhile
	Memory   bool                   `json:"memory"`   // the memory of the running guest is kept too
	Created  time.Time              `json:"created"`
	Bytes    int64                  `json:"bytes"` // of the disk, written since the checkpoint before, and of the memory
}

// CheckpointPlan is a schedule of checkpoints. Without every_seconds there is none.
type CheckpointPlan struct {
	EverySeconds int64 `json:"every_seconds,omitempty"` // between two checkpoints, at least 60
	Keep         int   `json:"keep,omitempty"`          // how many scheduled ones stay, 1 to 500; those that were asked for always do
}

func showCheckpoint(c gateway.Checkpoint, bytes int64) Checkpoint {
	return Checkpoint{ID: c.ID, Name: c.Name, Kind: c.Kind, Quiesced: c.Quiesced, Memory: c.Memory != "", Created: c.Created, Bytes: bytes}
}

// Checkpoint records the state of a VM, which may run meanwhile. A VM may ask this of itself.
func (s Session) Checkpoint(ctx context.Context, name string, r gateway.CheckpointRequest) (Checkpoint, error) {
	m, err := s.vm(verbCheckpoint, name)
	if err != nil {
		return Checkpoint{}, err
	}
	r.Kind = gateway.CheckpointAsked
	if s.inside() {
		r.Kind = gateway.CheckpointInside
	}
	c, err := s.api.Checkpoints.Checkpoint(ctx, m.ID, r)
	if err != nil {
		return Checkpoint{}, err
	}
	return s.checkpointOf(m.ID, c.Name)
}

// inside reports whether the caller is a VM.
func (s Session) inside() bool { return s.caller.vm != gateway.ID{} }

// CheckpointList returns a VM's checkpoints, the oldest first. A VM may ask this of itself.
func (s Session) CheckpointList(_ context.Context, name string) ([]Checkpoint, error) {
	m, err := s.vm(verbCheckpointList, name)
	if err != nil {
		return nil, err
	}
	all, bytes := s.api.Checkpoints.Checkpoints(m.ID)
	shown := make([]Checkpoint, len(all)) // not nil: an empty list is [] in JSON
	for i, c := range all {
		shown[i] = showCheckpoint(c, bytes[i])
	}
	return shown, nil
}

// checkpointOf returns the checkpoint of a VM that has a name or an id.
func (s Session) checkpointOf(id gateway.ID, which string) (Checkpoint, error) {
	all, bytes := s.api.Checkpoints.Checkpoints(id)
	for i, c := range all {
		if c.Name == which || string(c.ID) == which {
			return showCheckpoint(c, bytes[i]), nil
		}
	}
	return Checkpoint{}, gateway.Errorf(gateway.KindNotFound, "there is no checkpoint named %.100q", which).WithHint("lodge checkpoints VM lists them.")
}

// RemoveCheckpoint removes a checkpoint. A VM may remove those that it made itself.
func (s Session) RemoveCheckpoint(ctx context.Context, name, which string) error {
	m, err := s.vm(verbRemoveCheckpoint, name)
	if err != nil {
		return err
	}
	c, err := s.checkpointOf(m.ID, which)
	if err != nil {
		return err
	}
	if s.inside() && c.Kind != gateway.CheckpointInside {
		return errDenied(verbRemoveCheckpoint)
	}
	if err := s.api.Checkpoints.RemoveCheckpoint(ctx, m.ID, c.ID); err != nil {
		return err
	}
	s.audit(ctx, gateway.EventCheckpointRemoved, slog.String("vm", m.Name), slog.String("vm_id", m.ID.String()), slog.String("checkpoint", c.Name))
	return nil
}

// Rollback gives a VM the state of a checkpoint; the empty one is the newest that no rollback has made. The answer is the
// checkpoint of the state that it left. A VM may ask this of itself if its owner allows it; its shares stay then, and the
// answer comes before it is ended.
func (s Session) Rollback(ctx context.Context, name, checkpoint string) (Checkpoint, error) {
	m, err := s.vm(verbRollback, name)
	if err != nil {
		return Checkpoint{}, err
	}
	undo, err := s.api.Checkpoints.Rollback(ctx, m.ID, checkpoint, s.inside())
	if err != nil {
		return Checkpoint{}, err
	}
	s.audit(ctx, gateway.EventRolledBack, slog.String("vm", m.Name), slog.String("vm_id", m.ID.String()), slog.String("checkpoint", undo.Name))
	return s.checkpointOf(m.ID, undo.Name)
}

// Fork makes a VM with the disk and the buckets of a checkpoint of another one; the empty checkpoint is its
// present state. The caller needs to manage that one, and to be allowed to make VMs.
func (s Session) Fork(ctx context.Context, name, checkpoint, fork string, progress func(gateway.Progress)) (VM, error) {
	m, err := s.vm(verbFork, name)
	if err = errors.Join(err, s.allowed(verbNew)); err != nil {
		return VM{}, err
	}
	spec := gateway.Spec{Name: fork}
	if !s.owns() {
		spec.Grants = []gateway.Grant{{To: s.caller.person, Level: gateway.Manage}}
	}
	ctx, end := s.while(ctx, verbFork, m.ID)
	defer end()
	made, err := s.api.Checkpoints.Fork(ctx, m.ID, checkpoint, spec, timed(progress))
	if err != nil {
		return VM{}, orDenied(ctx, err)
	}
	if now, _ := s.api.Directory.ByID(m.ID); !s.may(verbFork, now) || !s.may(verbNew, gateway.VM{}) { // it took a while
		return VM{}, errors.Join(errDenied(verbFork), s.api.Machines.Remove(context.WithoutCancel(ctx), made.ID))
	}
	for _, g := range spec.Grants {
		s.auditGrant(ctx, made, g)
	}
	return s.shown(ctx, made), nil
}

// SetCheckpointPlan sets how often checkpoints of a VM are made, and how many of those stay.
func (s Session) SetCheckpointPlan(ctx context.Context, name string, p CheckpointPlan) (VM, error) {
	m, err := s.vm(verbCheckpointPlan, name)
	if err != nil {
		return VM{}, err
	}
	var plan gateway.CheckpointPlan
	if p != (CheckpointPlan{}) {
		seconds := min(max(p.EverySeconds, 0), int64(gateway.MaxCheckpointEvery/time.Second)+1)
		plan = gateway.CheckpointPlan{Every: time.Duration(seconds) * time.Second, Keep: p.Keep}
		if err := plan.Check(); err != nil {
			return VM{}, err
		}
	}
	m, err = s.update(ctx, verbCheckpointPlan, m.ID, func(m *gateway.VM) error {
		m.CheckpointPlan = plan
		return nil
	})
	if err != nil {
		return VM{}, err
	}
	return s.shown(ctx, m), nil
}

// showPlan returns the plan of a VM; nil without one.
func showPlan(p gateway.CheckpointPlan) *CheckpointPlan {
	if p.Every == 0 {
		return nil
	}
	return &CheckpointPlan{EverySeconds: int64(p.Every / time.Second), Keep: p.Keep}
}
