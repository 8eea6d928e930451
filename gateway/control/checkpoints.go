package control

import (
	"context"
	"net/http"

	"lodge/gateway"
	"lodge/gateway/api"
)

// RollbackRequest is the body of rollback.
type RollbackRequest struct {
	Checkpoint string `json:"checkpoint,omitempty"` // its name or id; without one, the newest that no rollback has made
}

// ForkRequest is the body of fork.
type ForkRequest struct {
	Checkpoint string `json:"checkpoint,omitempty"` // its name or id; without one, the present state
	Name       string `json:"name"`                 // of the new VM
}

func (s *Server) checkpointRoutes() []route {
	const vm = "/v1/vms/{name}"
	return []route{
		{"POST", vm + "/checkpoints", asked(s, api.Session.Checkpoint), gateway.CheckpointRequest{}, api.Checkpoint{}, "Records the state of a VM: disk, mailbox, buckets and shares. It may run meanwhile."},
		{"GET", vm + "/checkpoints", named(s, api.Session.CheckpointList), nil, []api.Checkpoint{}, "Lists the VM's checkpoints, the oldest first."},
		{"DELETE", vm + "/checkpoints/{checkpoint}", s.removeCheckpoint, nil, nil, "Removes a checkpoint. Forks of it stay."},
		{"PUT", vm + "/checkpoint-plan", asked(s, api.Session.SetCheckpointPlan), api.CheckpointPlan{}, api.VM{}, "Sets how often checkpoints are made, and how many of those stay. An empty body ends it."},
		{"POST", vm + "/rollback", asked(s, rollback), RollbackRequest{}, api.Checkpoint{}, "Ends the VM at once, gives it the state of a checkpoint, and starts it again if it ran. The answer is a checkpoint of the state that it left."},
		{"POST", vm + "/fork", s.fork, ForkRequest{}, stream{api.VM{}}, "Makes a VM with the disk and the buckets of a checkpoint, and an identity of its own. When the request is cancelled, nothing of it is left."},
	}
}

func rollback(s api.Session, ctx context.Context, name string, in RollbackRequest) (api.Checkpoint, error) { //nolint:revive // the order of method expressions
	return s.Rollback(ctx, name, in.Checkpoint)
}

func (s *Server) removeCheckpoint(w http.ResponseWriter, r *http.Request) error {
	return noContentOr(w, s.as(r).RemoveCheckpoint(r.Context(), r.PathValue("name"), r.PathValue("checkpoint")))
}

func (s *Server) fork(w http.ResponseWriter, r *http.Request) error {
	var in ForkRequest
	if err := decode(w, r, maxBodyBytes, &in); err != nil {
		return err
	}
	out := newEvents(w)
	vm, err := s.as(r).Fork(r.Context(), r.PathValue("name"), in.Checkpoint, in.Name, out.progress)
	return out.end(Event{VM: &vm}, err)
}

// Checkpoint records the state of a VM.
func (c *Client) Checkpoint(ctx context.Context, name string, r gateway.CheckpointRequest) (api.Checkpoint, error) {
	var made api.Checkpoint
	err := c.onVM(ctx, http.MethodPost, name, "/checkpoints", r, &made)
	return made, err
}

// Checkpoints lists the checkpoints of a VM, the oldest first.
func (c *Client) Checkpoints(ctx context.Context, name string) ([]api.Checkpoint, error) {
	var all []api.Checkpoint
	err := c.onVM(ctx, http.MethodGet, name, "/checkpoints", nil, &all)
	return all, err
}

// RemoveCheckpoint removes a checkpoint, by its name or id.
func (c *Client) RemoveCheckpoint(ctx context.Context, name, checkpoint string) error {
	path, err := vmPath(name, "/checkpoints/")
	if err != nil {
		return err
	}
	return c.onPath(ctx, http.MethodDelete, path, checkpoint, "", nil, nil)
}

// SetCheckpointPlan sets how often checkpoints of a VM are made.
func (c *Client) SetCheckpointPlan(ctx context.Context, name string, plan api.CheckpointPlan) (api.VM, error) {
	return c.infoOf(ctx, http.MethodPut, name, "/checkpoint-plan", plan)
}

// Rollback gives a VM the state of a checkpoint; the empty one is the newest. It returns the checkpoint of the state that
// it left.
func (c *Client) Rollback(ctx context.Context, name, checkpoint string) (api.Checkpoint, error) {
	var undo api.Checkpoint
	err := c.onVM(ctx, http.MethodPost, name, "/rollback", RollbackRequest{checkpoint}, &undo)
	return undo, err
}

// Fork makes a VM with the state of a checkpoint of another; the empty one is its present state. Ending ctx removes it
// again.
func (c *Client) Fork(ctx context.Context, name, checkpoint, fork string, progress func(gateway.Progress)) (api.VM, error) {
	path, err := vmPath(name, "/fork")
	if err != nil {
		return api.VM{}, err
	}
	return vmOf(c.stream(ctx, http.MethodPost, path, ForkRequest{checkpoint, fork}, progress))
}
