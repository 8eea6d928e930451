package api_test

import (
	"context"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
)

// checkpointer has two checkpoints of each VM, and notes what it is asked for.
type checkpointer struct {
	directory *gateway.Directory
	kind      gateway.CheckpointKind
	inside    bool
	removed   gateway.CheckpointID
	meanwhile func()
}

func (c *checkpointer) Checkpoint(_ context.Context, _ gateway.ID, r gateway.CheckpointRequest) (gateway.Checkpoint, error) {
	c.kind = r.Kind
	return gateway.Checkpoint{Name: "own"}, nil
}

func (*checkpointer) Checkpoints(gateway.ID) ([]gateway.Checkpoint, []int64) {
	return []gateway.Checkpoint{{ID: "1", Name: "mine", Kind: gateway.CheckpointAsked}, {ID: "2", Name: "own", Kind: gateway.CheckpointInside}}, []int64{1, 2}
}

func (c *checkpointer) RemoveCheckpoint(_ context.Context, _ gateway.ID, which gateway.CheckpointID) error {
	c.removed = which
	return nil
}

func (c *checkpointer) Rollback(_ context.Context, _ gateway.ID, _ string, inside bool) (gateway.Checkpoint, error) {
	c.inside = inside
	return gateway.Checkpoint{Name: "mine"}, nil
}

func (c *checkpointer) Fork(ctx context.Context, _ gateway.ID, _ string, spec gateway.Spec, p func(gateway.Progress)) (gateway.VM, error) {
	return maker{directory: c.directory, last: c.meanwhile}.New(ctx, spec, p)
}

// A VM makes checkpoints of itself, and removes those alone. It goes back to one if its owner allows that.
func TestCheckpointsFromInside(t *testing.T) {
	a, log := sharing(t)
	c := &checkpointer{directory: a.Directory}
	a.Checkpoints = c
	blog, _ := a.Directory.ByName("blog")
	inside, owner := a.As(api.VMCaller(blog.Identity)), a.As(api.Owner())
	for session, want := range map[api.Session]gateway.CheckpointKind{inside: gateway.CheckpointInside, owner: gateway.CheckpointAsked} {
		if got, err := session.Checkpoint(t.Context(), "blog", gateway.CheckpointRequest{Kind: gateway.CheckpointScheduled}); err != nil || got.Bytes != 2 || c.kind != want {
			t.Errorf("%+v of kind %s, %v", got, c.kind, err)
		}
	}
	if err := inside.RemoveCheckpoint(t.Context(), "blog", "mine"); gateway.KindOf(err) != gateway.KindDenied || c.removed != "" {
		t.Errorf("the owner's: %v, removed %q", err, c.removed)
	}
	gatewaytest.Must(t, inside.RemoveCheckpoint(t.Context(), "blog", "own"))
	if c.removed != "2" || log.Count("event=checkpoint.removed") != 1 {
		t.Errorf("removed %q:\n%s", c.removed, log)
	}
	if _, err := inside.Rollback(t.Context(), "blog", "mine"); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("a rollback that nobody allowed: %v", err)
	}
	yes := true
	_, err := owner.Set(t.Context(), "blog", api.Settings{RollbackInside: &yes})
	gatewaytest.Must(t, err)
	if got, err := inside.Rollback(t.Context(), "blog", "mine"); err != nil || got.Name != "mine" || !c.inside || log.Count("event=vm.rolledback") != 1 {
		t.Errorf("%+v, %v, inside %v", got, err, c.inside)
	}
	if _, err := owner.Rollback(t.Context(), "blog", ""); err != nil || c.inside {
		t.Errorf("by the owner: %v, inside %v", err, c.inside)
	}
}

// A member who manages a VM forks it, and manages the fork. A right that is taken back meanwhile leaves none.
func TestForkRights(t *testing.T) {
	a, _ := sharing(t)
	ada, revoke := manager(t, a)
	c := &checkpointer{directory: a.Directory, meanwhile: func() {}}
	a.Checkpoints, a.Machines = c, maker{directory: a.Directory}
	if _, err := ada.Fork(t.Context(), "blog", "", "twin", nil); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("one who may make no VM: %v", err)
	}
	p, _, err := a.People.Add(t.Context(), "ada@example.com", "member")
	gatewaytest.Must(t, err)
	_, err = ada.Fork(t.Context(), "blog", "", "twin", nil)
	if m, _ := a.Directory.ByName("twin"); err != nil || len(m.Grants) != 1 || m.Grants[0] != (gateway.Grant{To: p.ID, Level: gateway.Manage}) {
		t.Errorf("%+v, %v", m.Grants, err)
	}
	c.meanwhile = revoke
	_, err = ada.Fork(t.Context(), "blog", "", "third", nil)
	if _, ok := a.Directory.ByName("third"); gateway.KindOf(err) != gateway.KindDenied || ok {
		t.Errorf("with the right taken back: %v, made %v", err, ok)
	}
}

func TestCheckpointPlan(t *testing.T) {
	a, _ := sharing(t)
	s := a.As(api.Owner())
	for _, p := range []api.CheckpointPlan{{EverySeconds: 59, Keep: 1}, {EverySeconds: 3600}, {Keep: 3}, {EverySeconds: 1 << 62, Keep: 1}, {EverySeconds: -1, Keep: 1}} {
		if _, err := s.SetCheckpointPlan(t.Context(), "blog", p); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []api.CheckpointPlan{{EverySeconds: 3600, Keep: 24}, {}} {
		shown, err := s.SetCheckpointPlan(t.Context(), "blog", p)
		if has := shown.CheckpointPlan != nil; err != nil || has != (p.Keep > 0) || has && *shown.CheckpointPlan != p {
			t.Errorf("%+v: %+v, %v", p, shown.CheckpointPlan, err)
		}
	}
}
