package vmhost

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt"
)

// part is a Part whose state is a number per VM. It outlives a Host, as files do.
type part struct {
	mu    sync.Mutex
	now   map[gateway.ID]int
	marks map[gateway.ID]map[gateway.CheckpointID]int
	held  int
	fail  error  // of the next Mark
	slow  func() // called by Mark, if not nil
}

func newPart() *part {
	return &part{now: map[gateway.ID]int{}, marks: map[gateway.ID]map[gateway.CheckpointID]int{}}
}

func (p *part) Mark(_ context.Context, vm gateway.ID, id gateway.CheckpointID) (func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return nil, p.fail
	}
	if p.marks[vm] == nil {
		p.marks[vm] = map[gateway.CheckpointID]int{}
	}
	p.marks[vm][id] = p.now[vm]
	p.held++
	if p.slow != nil {
		p.slow()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held--
	}, nil
}

func (p *part) Rewind(_ context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	state, ok := p.marks[vm][id]
	if !ok {
		return gateway.Errorf(gateway.KindNotFound, "no mark")
	}
	p.now[vm] = state
	return nil
}

func (p *part) Fork(_ context.Context, vm gateway.ID, id gateway.CheckpointID, to gateway.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now[to] = p.marks[vm][id]
	return nil
}

func (p *part) Drop(_ context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.marks[vm], id)
	return nil
}

func (p *part) Marks(_ context.Context, vm gateway.ID) ([]gateway.CheckpointID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.marks[vm])), nil
}

func (p *part) set(vm gateway.ID, state int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now[vm] = state
}

// undoRig is a VM that is off, without libvirtd, with what outlives its Host.
type undoRig struct {
	h      *Host
	config Config
	vms    *gatewaytest.Records
	blog   gateway.VM
	parts  []*part
}

// newUndoRig makes a VM whose state is 1.
func newUndoRig(t *testing.T) *undoRig {
	t.Helper()
	r := &undoRig{vms: new(gatewaytest.Records), parts: []*part{newPart(), newPart()}, blog: newVM("blog", gateway.Stopped)}
	r.blog.DiskGiB, r.blog.Disk = 1, "first"
	layers := new(gatewaytest.Layers)
	gatewaytest.Must(t, layers.Put(t.Context(), gateway.Layer{
		ID: "first", VM: r.blog.ID, File: "disks/first.img", Format: gateway.Raw, Bytes: 1 << 30, State: gateway.LayerReady,
	}))
	gatewaytest.NewDirectory(t, r.vms, r.blog)
	r.config = Config{
		StateDir: filepath.Join(t.TempDir(), "state"), RunDir: filepath.Join(t.TempDir(), "run"), Domain: "lodge.localhost",
		Layers: layers, Checkpoints: new(gatewaytest.Checkpoints), LibvirtSocket: filepath.Join(t.TempDir(), "none"),
	}
	for _, p := range r.parts {
		r.config.Parts = append(r.config.Parts, p)
	}
	r.restart(t)
	gatewaytest.Must(t, os.WriteFile(filepath.Join(r.h.cfg.diskDir(), "first.img"), nil, 0o600))
	r.change(t, 1)
	return r
}

// restart starts another daemon, as Run and the worker do but for libvirtd.
func (r *undoRig) restart(t *testing.T) {
	t.Helper()
	directory, err := gateway.OpenDirectory(t.Context(), r.vms)
	gatewaytest.Must(t, err)
	r.config.Directory = directory
	r.h, err = New(r.config)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, r.h.layers.Recover(t.Context()))
	r.h.recoverCheckpoints(t.Context())
	close(r.h.ready)
	for _, m := range r.h.dir.All() {
		gatewaytest.Must(t, r.h.settleDisk(t.Context(), m.ID, libvirt.Absent))
		if m.Rollback != nil {
			gatewaytest.Must(t, r.h.rewind(t.Context(), m))
		}
	}
	gatewaytest.Must(t, r.h.sweepLayers(t.Context(), gateway.ID{}))
	for _, p := range r.parts {
		p.held = 0 // with the process
	}
}

// change gives the Parts and the shares another state.
func (r *undoRig) change(t *testing.T, state int) {
	t.Helper()
	for _, p := range r.parts {
		p.set(r.blog.ID, state)
	}
	_, err := r.h.dir.Update(t.Context(), r.blog.ID, func(m *gateway.VM) error {
		m.Shares = []gateway.Share{{Port: uint16(state), Visibility: gateway.Public}} //nolint:gosec // it is small
		return nil
	})
	gatewaytest.Must(t, err)
}

func (r *undoRig) vm(t *testing.T) gateway.VM {
	t.Helper()
	m, ok := r.h.dir.ByID(r.blog.ID)
	if !ok {
		t.Fatal("the VM is gone")
	}
	return m
}

func (r *undoRig) checkpoint(t *testing.T, request gateway.CheckpointRequest) (gateway.Checkpoint, error) {
	t.Helper()
	return r.h.checkpoint(t.Context(), r.vm(t), libvirt.Absent, request)
}

// rollback is Host.Rollback without libvirtd.
func (r *undoRig) rollback(t *testing.T, name string, inside bool) error {
	t.Helper()
	if _, err := r.h.beginRollback(t.Context(), r.vm(t), libvirt.Absent, name, inside); err != nil {
		return err
	}
	if err := r.h.rewind(t.Context(), r.vm(t)); err != nil {
		return err
	}
	return r.h.sweepLayers(t.Context(), gateway.ID{})
}

// crash is the panic of a crash.
type crash struct{ point string }

// crashAt calls f, in which the daemon is killed at the nth point that it passes, and starts another. It
// returns the point; empty if f passes fewer.
func (r *undoRig) crashAt(t *testing.T, n int, f func() error) (point string) {
	t.Helper()
	passed := 0
	r.h.at = func(point string) {
		if passed++; passed > n {
			panic(crash{point})
		}
	}
	func() {
		defer func() {
			switch c := recover().(type) {
			case nil:
			case crash:
				point = c.point
			default:
				panic(c)
			}
		}()
		gatewaytest.Must(t, f())
	}()
	r.restart(t)
	return point
}

// states returns that of each Part and of the shares.
func (r *undoRig) states(t *testing.T) (states []int) {
	t.Helper()
	for _, p := range r.parts {
		states = append(states, p.now[r.blog.ID])
	}
	return append(states, int(r.vm(t).Shares[0].Port))
}

// checkRests checks that there is nothing but what the VM and its checkpoints need.
func (r *undoRig) checkRests(t *testing.T) {
	t.Helper()
	var want, got []string
	for _, c := range r.h.checkpoints.Of(r.blog.ID) {
		want = append(want, string(c.ID))
	}
	slices.Sort(want)
	for _, p := range r.parts {
		got = nil
		for id := range p.marks[r.blog.ID] {
			got = append(got, string(id))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || p.held != 0 {
			t.Errorf("marks, %d held back (-want +got):\n%s", p.held, diff)
		}
	}
	needed := map[gateway.LayerID]bool{}
	tops := r.h.checkpoints.Layers()
	for _, m := range r.h.dir.All() {
		tops[m.Disk] = true
	}
	for top := range tops {
		chain, err := r.h.layers.Chain(top)
		gatewaytest.Must(t, err)
		for _, l := range chain {
			needed[l.ID] = true
			if _, err := os.Stat(r.h.layers.Path(l)); err != nil || l.State != gateway.LayerReady {
				t.Errorf("%+v, %v", l, err)
			}
		}
	}
	if all, files := r.h.layers.All(), names(t, r.h.cfg.diskDir(), "*"); len(all) != len(needed) || len(files) != len(needed) {
		t.Errorf("%d layers, %d files, %d are needed", len(all), len(files), len(needed))
	}
}
