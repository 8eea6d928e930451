package vmhost

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/checkpoint"
	"lodge/vmhost/image"
	"lodge/vmhost/layers"
	"lodge/vmhost/libvirt"
)

// verb is something that is done to the world. prepare chooses a VM, and returns what to do and the
// models that there may be if it is killed, the last of which there is afterwards. It returns nil when
// there is nothing to do it with.
type verb struct {
	name    string
	prepare func(t *testing.T) (do func() error, after []model)
}

func (w *world) verbs() []verb {
	named := func(name string, times int, prepare func(*testing.T) (func() error, []model)) []verb {
		return slices.Repeat([]verb{{name, prepare}}, times)
	}
	return slices.Concat(
		named("new", 2, w.create), named("write", 6, w.write), named("checkpoint", 5, w.checkpoint), named("unanswered checkpoint", 1, w.unanswered),
		named("start", 2, w.start), named("stop", 1, w.stop), named("expire", 1, w.expire), named("checkpoint rm", 2, w.removeCheckpoint),
		named("rollback", 4, w.rollback), named("fork", 3, w.fork), named("rm", 1, w.remove),
	)
}

const worldVMs = 5

// any returns a random VM.
func (w *world) any() (m gateway.VM, s service, ok bool) {
	all := w.h.dir.All()
	if len(all) == 0 {
		return m, s, false
	}
	m = all[rand.IntN(len(all))] //nolint:gosec // a test
	return m, w.is[m.Name], true
}

// anySaved returns a random VM with one of its checkpoints, the ith.
func (w *world) anySaved() (m gateway.VM, s service, i int, c gateway.Checkpoint, ok bool) {
	m, s, _ = w.any()
	if len(s.Saved) == 0 {
		return m, s, 0, c, false
	}
	i = rand.IntN(len(s.Saved)) //nolint:gosec // a test
	return m, s, i, w.h.checkpoints.Of(m.ID)[i], true
}

// name returns one that is free.
func (w *world) name() (name string, ok bool) {
	for i := range worldVMs {
		name = string(rune('a' + i))
		if _, taken := w.is[name]; !taken {
			return name, true
		}
	}
	return "", false
}

func (w *world) create(t *testing.T) (func() error, []model) {
	t.Helper()
	name, ok := w.name()
	if !ok {
		return nil, nil
	}
	if rand.IntN(3) == 0 { //nolint:gosec // a test
		w.image(t)
	}
	spec := gateway.Spec{Name: name, Boot: true, Size: gateway.Size{Image: "tiny", CPUs: 1, MemoryMiB: 128, DiskGiB: 1}}
	after := w.is.with(name, service{Now: state{Disk: [1 + blocks]byte{byte(w.images)}}})
	return func() error {
		img, err := image.Open(w.h.cfg.imageDir(), "tiny")
		if err != nil {
			return err
		}
		guest, from, err := w.h.recordNew(t.Context(), spec, img, func(string, string) {})
		if err != nil {
			return err
		}
		if err := w.h.makeDisks(t.Context(), guest, from); err != nil {
			return err
		}
		return w.h.setReady(t.Context(), guest.VM.ID)
	}, []model{after}
}

// write has the guest, its correspondents and its owner write. That is no verb: it is not killed.
func (w *world) write(t *testing.T) (func() error, []model) {
	t.Helper()
	m, s, ok := w.any()
	if !ok {
		return nil, nil
	}
	block, b := 1+rand.IntN(blocks), byte(rand.IntN(256)) //nolint:gosec // a test
	s.Now.Disk[block] = b
	for i := range s.Now.Parts {
		s.Now.Parts[i]++
	}
	s.Now.Share = uint16(1 + rand.IntN(1000)) //nolint:gosec // as above
	return func() error {
		w.left = -1
		w.writeBlock(t, m, block, b)
		for i, p := range w.parts {
			p.set(m.ID, s.Now.Parts[i])
		}
		_, err := w.h.dir.Update(t.Context(), m.ID, func(m *gateway.VM) error {
			m.Shares = []gateway.Share{{Port: s.Now.Share, Visibility: gateway.Public}}
			return nil
		})
		return err
	}, []model{w.is.with(m.Name, s)}
}

// writeBlock writes to the disk of a VM as its guest does.
func (w *world) writeBlock(t *testing.T, m gateway.VM, block int, b byte) {
	t.Helper()
	chain, err := w.h.layers.Chain(m.Disk)
	gatewaytest.Must(t, err)
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-t", "unsafe", "-f", string(chain[0].Format),
		"-c", fmt.Sprintf("write -q -P %d %d 512", b, blockAt(block)), w.h.layers.Path(chain[0])).CombinedOutput()
	if err != nil {
		t.Fatalf("write: %v: %s", err, out)
	}
}

// and is a VM with a further checkpoint, of its present state.
func (s service) and(kind gateway.CheckpointKind) service {
	s.Saved = append(slices.Clone(s.Saved), saved{kind, s.Now})
	return s
}

func (w *world) checkpoint(t *testing.T) (func() error, []model) {
	t.Helper()
	m, s, ok := w.any()
	if !ok {
		return nil, nil
	}
	kinds := []gateway.CheckpointKind{gateway.CheckpointAsked, gateway.CheckpointInside, gateway.CheckpointScheduled}
	kind := kinds[rand.IntN(len(kinds))] //nolint:gosec // a test
	return func() error {
		_, err := w.h.checkpoint(t.Context(), m, libvirt.Absent, gateway.CheckpointRequest{Kind: kind})
		return err
	}, []model{w.is.with(m.Name, s.and(kind))}
}

// unanswered is a checkpoint of a running VM that libvirtd does not answer: there is none, and the change
// of the disk that libvirtd may have made is finished.
func (w *world) unanswered(t *testing.T) (func() error, []model) {
	t.Helper()
	m, _, ok := w.any()
	if !ok {
		return nil, nil
	}
	return func() error {
		_, err := w.h.checkpoint(t.Context(), m, libvirt.Running, gateway.CheckpointRequest{Kind: gateway.CheckpointAsked})
		if gateway.KindOf(err) != gateway.KindUnavailable {
			return fmt.Errorf("a checkpoint without an answer: %w", err)
		}
		if _, ok := w.h.layers.Pending(m.ID); !ok {
			t.Error("no change of the disk is pending")
		}
		return w.h.settleDisk(t.Context(), m.ID, libvirt.Absent)
	}, []model{w.is}
}

func (w *world) expire(t *testing.T) (func() error, []model) {
	t.Helper()
	m, s, ok := w.any()
	if !ok {
		return nil, nil
	}
	m.Desired = gateway.Stopped // so that no further one is due
	m.CheckpointPlan = gateway.CheckpointPlan{Every: time.Hour, Keep: 1 + rand.IntN(2)}
	var after []model
	for range checkpoint.Expired(w.h.checkpoints.Of(m.ID), m.CheckpointPlan) {
		i := slices.IndexFunc(s.Saved, func(c saved) bool { return c.Kind == gateway.CheckpointScheduled })
		s.Saved = without(s.Saved, i)
		after = append(after, w.is.with(m.Name, s))
	}
	if after == nil {
		return nil, nil
	}
	return func() error { return w.h.keepSchedule(t.Context(), m, time.Now()) }, after
}

// without is a list without the ith; nil if that was all.
func without(all []saved, i int) []saved {
	return append([]saved(nil), slices.Delete(slices.Clone(all), i, i+1)...)
}

func (w *world) removeCheckpoint(t *testing.T) (func() error, []model) {
	t.Helper()
	m, s, i, c, ok := w.anySaved()
	if !ok {
		return nil, nil
	}
	s.Saved = without(s.Saved, i)
	return func() error { return w.h.RemoveCheckpoint(t.Context(), m.ID, c.ID) }, []model{w.is.with(m.Name, s)}
}

// rollback goes back to any checkpoint, also to one that a rollback has made. Before it has begun there
// may be the checkpoint of the present state, and nothing else is changed.
func (w *world) rollback(t *testing.T) (func() error, []model) {
	t.Helper()
	m, s, i, c, ok := w.anySaved()
	if !ok {
		return nil, nil
	}
	inside := rand.IntN(4) == 0 //nolint:gosec // a test
	prepared := s.and(gateway.CheckpointUndo)
	back := prepared
	back.Now = s.Saved[i].State
	if inside {
		back.Now.Share = s.Now.Share
	}
	return func() error {
		if _, err := w.h.beginRollback(t.Context(), m, libvirt.Absent, string(c.ID), inside); err != nil {
			return err
		}
		m, _ := w.h.dir.ByID(m.ID)
		if err := w.h.rewind(t.Context(), m); err != nil {
			return err
		}
		return w.h.sweepLayers(t.Context(), gateway.ID{})
	}, []model{w.is.with(m.Name, prepared), w.is.with(m.Name, back)}
}

// fork forks a checkpoint, or the present state, of a VM that may be a fork itself.
func (w *world) fork(t *testing.T) (func() error, []model) {
	t.Helper()
	name, free := w.name()
	m, s, ok := w.any()
	if !free || !ok {
		return nil, nil
	}
	var from gateway.Checkpoint
	now := s.Now
	if len(s.Saved) > 0 && rand.IntN(2) == 0 { //nolint:gosec // a test
		i := rand.IntN(len(s.Saved)) //nolint:gosec // as above
		from, now = w.h.checkpoints.Of(m.ID)[i], s.Saved[i].State
	}
	now.Share = 0
	return func() (err error) {
		if from.ID == "" {
			if from, err = w.h.checkpoint(t.Context(), m, libvirt.Absent, gateway.CheckpointRequest{Kind: gateway.CheckpointFork}); err != nil {
				return err
			}
		}
		return w.forkFrom(t.Context(), m.ID, from, name)
	}, []model{w.is.with(name, service{Now: now})}
}

func (w *world) forkFrom(ctx context.Context, id gateway.ID, from gateway.Checkpoint, name string) error {
	guest, err := w.h.recordFork(ctx, id, from, gateway.Spec{Name: name})
	if err != nil {
		return err
	}
	if err := w.h.makeFork(ctx, guest, id, from); err != nil {
		return err
	}
	if err := w.h.setReady(ctx, guest.VM.ID); err != nil {
		return err
	}
	if from.Kind == gateway.CheckpointFork {
		w.h.endFork(ctx, from)
	}
	return nil
}

// start prepares all that libvirtd starts: a disk of few layers, each of which can be read.
func (w *world) start(t *testing.T) (func() error, []model) {
	t.Helper()
	m, _, ok := w.any()
	if !ok {
		return nil, nil
	}
	return func() error {
		if _, err := w.h.desire(t.Context(), m.ID, gateway.Running); err != nil {
			return err
		}
		w.h.flattenDeep(t.Context(), m.ID)
		m, err := w.h.nextIncarnation(t.Context(), m.ID)
		if err != nil {
			return err
		}
		var def libvirt.Definition
		if err := w.h.setDisks(&def, m); err != nil {
			return err
		}
		if len(def.Disks) >= layers.FlattenAt {
			t.Errorf("it starts with %d layers", len(def.Disks))
		}
		return nil
	}, []model{w.is}
}

func (w *world) stop(t *testing.T) (func() error, []model) {
	t.Helper()
	m, _, ok := w.any()
	if !ok {
		return nil, nil
	}
	return func() error {
		_, err := w.h.desire(t.Context(), m.ID, gateway.Stopped)
		return err
	}, []model{w.is}
}

func (w *world) remove(t *testing.T) (func() error, []model) {
	t.Helper()
	m, _, ok := w.any()
	if !ok {
		return nil, nil
	}
	after := model{}
	for name, s := range w.is {
		if name != m.Name {
			after[name] = s
		}
	}
	return func() error {
		if _, err := w.h.desire(t.Context(), m.ID, gateway.Removed); err != nil {
			return err
		}
		return w.h.removeData(t.Context(), m.ID)
	}, []model{after}
}
