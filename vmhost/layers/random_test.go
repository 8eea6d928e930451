package layers_test

import (
	"context"
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/gateway/store"
	"lodge/vmhost/disk"
	"lodge/vmhost/layers"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

var operations = flag.Int("operations", 250, "how many random operations are done")

// Whatever is done in whatever order, and wherever the daemon or the host crashes meanwhile: each
// disk has the content from before or from after the operation that was interrupted, each checkpoint
// has its content, no row is without its file or its parent, and there is no other file.
func TestRandomOperations(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := newModel(t, rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // a test
	for n := range *operations {
		m.crashAt = m.rand.IntN(9) - 2
		name := m.operate(t)
		if m.crashed {
			m.crashes["in "+name]++
			m.restart(t)
		}
		m.check(t, n%50 == 0)
		if t.Failed() {
			t.Fatalf("operation %d, %s", n, name)
		}
	}
	m.check(t, true)
	t.Logf("crashes: %v", m.crashes)
}

const (
	blocks     = 4
	blockBytes = 64 << 10
	modelVMs   = 6
)

// content is the first byte of each block of a disk.
type content [blocks]byte

// model is what the disks must have, and the domains.
type model struct {
	rand    *rand.Rand
	dir     string
	records *store.Layers
	tree    *layers.Tree
	images  int

	vms         map[gateway.ID]*vm
	checkpoints map[gateway.LayerID]content

	crashAt int // how many points from now; negative: never
	crashed bool
	crashes map[string]int
}

// vm is the record of a VM and its domain.
type vm struct {
	disk   gateway.LayerID
	ready  bool
	has    content
	or     *content // if an operation was interrupted
	domain string   // the file that the running domain writes to; empty: off
}

func newModel(t *testing.T, random *rand.Rand) *model {
	t.Helper()
	dir := sandboxtest.SmallDisk(t, 256<<20) // in memory: many small files are synced
	s, err := store.Open(t.Context(), filepath.Join(dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/24"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, s.Close()) })
	gatewaytest.Must(t, errors.Join(os.Mkdir(filepath.Join(dir, "disks"), 0o700), os.Mkdir(filepath.Join(dir, "images"), 0o700)))
	m := &model{
		rand: random, dir: dir, records: s.Layers(), vms: map[gateway.ID]*vm{}, checkpoints: map[gateway.LayerID]content{}, crashes: map[string]int{},
	}
	m.open(t)
	return m
}

// Disk implements layers.VMs.
func (m *model) Disk(id gateway.ID) (gateway.LayerID, bool) {
	v, ok := m.vms[id]
	if !ok {
		return "", false
	}
	return v.disk, true
}

// SetDisk implements layers.VMs.
func (m *model) SetDisk(_ context.Context, id gateway.ID, layer gateway.LayerID) error {
	m.vms[id].disk = layer
	return nil
}

// crash is what a crash panics with.
type crash struct{}

// open is the start of a daemon.
func (m *model) open(t *testing.T) {
	t.Helper()
	tree, err := layers.Open(t.Context(), m.records, m, m.dir)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, tree.Recover(t.Context()))
	tree.CrashIn(func(point string) {
		if m.crashAt--; m.crashAt == -1 {
			m.crashes[point]++
			panic(crash{})
		}
	})
	m.tree = tree
}

// operate does one random operation, which may crash.
func (m *model) operate(t *testing.T) (name string) {
	t.Helper()
	operations := []struct {
		name string
		do   func(*testing.T, gateway.ID) error
	}{
		{"new", m.create},
		{"new", m.create},
		{"write", m.write},
		{"write", m.write},
		{"push", m.push},
		{"push", m.push},
		{"flatten", m.flatten},
		{"merge", m.merge},
		{"rollback", m.rollback},
		{"fork", m.fork},
		{"remove", m.remove},
		{"start", m.start},
		{"start", m.start},
		{"stop", m.stop},
		{"drop", m.drop},
	}
	op := operations[m.rand.IntN(len(operations))]
	name = op.name
	defer func() {
		m.crashAt = -1
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			m.crashed = true
		}
	}()
	id := m.any()
	if _, ok := m.vms[id]; ok == (op.name == "new") && op.name != "fork" {
		return name // there is none, or the host is full
	}
	if err := op.do(t, id); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return name
}

// any returns a VM, or an ID without one.
func (m *model) any() gateway.ID {
	ids := slices.SortedFunc(maps.Keys(m.vms), func(a, b gateway.ID) int { return slices.Compare(a[:], b[:]) })
	if n := m.rand.IntN(modelVMs); n < len(ids) {
		return ids[n]
	}
	return gateway.NewID()
}

// restart is a start after a crash of the daemon, or of the host with all domains.
func (m *model) restart(t *testing.T) {
	t.Helper()
	m.crashed, m.crashAt = false, -1
	if m.rand.IntN(2) == 0 {
		for _, v := range m.vms {
			v.domain = ""
		}
	}
	for _, l := range m.tree.All() { // what a crash of the helper leaves
		path := m.tree.Path(l)
		if _, err := os.Stat(path); err != nil && l.State == gateway.LayerMaking {
			gatewaytest.Must(t, os.WriteFile(disk.Draft(path), []byte("half"), 0o600))
		}
	}
	m.open(t)
	for id, v := range m.vms {
		gatewaytest.Must(t, m.settle(t, id))
		if v.or != nil { // an old state or the new, never a third
			if m.read(t, v.disk) == *v.or {
				v.has = *v.or
			}
			v.or = nil
		}
		if !v.ready {
			delete(m.vms, id) // half-made
		}
	}
	gatewaytest.Must(t, m.sweep(t))
}

func (m *model) path(id gateway.LayerID) string {
	chain, err := m.tree.Chain(id)
	if err != nil {
		panic(err)
	}
	return m.tree.Path(chain[0])
}

// read reads a disk through all of its layers, as QEMU does: by the record, not by their headers.
func (m *model) read(t *testing.T, id gateway.LayerID) (has content) {
	t.Helper()
	chain, err := m.tree.Chain(id)
	gatewaytest.Must(t, err)
	parts := make([]disk.Part, len(chain))
	for i, l := range chain {
		parts[i] = disk.Part{File: m.tree.Path(l), Format: l.Format}
	}
	spec, err := disk.ChainSpec(parts)
	gatewaytest.Must(t, err)
	raw := filepath.Join(m.dir, "read")
	out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-t", "unsafe", "-O", "raw", spec, raw).CombinedOutput()
	if err != nil {
		t.Fatalf("read %s: %v: %s", id, err, out)
	}
	data, err := os.ReadFile(raw)
	gatewaytest.Must(t, err)
	for i := range has {
		has[i] = data[i*blockBytes]
	}
	return has
}

// check compares rows, files and, if deep, all contents with the model.
func (m *model) check(t *testing.T, deep bool) {
	t.Helper()
	rows, err := m.records.All(t.Context())
	gatewaytest.Must(t, err)
	files := map[string]bool{}
	for _, l := range rows {
		files[filepath.Base(l.File)] = true
		if _, err := os.Stat(m.tree.Path(l)); err != nil {
			t.Errorf("%s: %v", l.ID, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(m.dir, "disks"))
	gatewaytest.Must(t, err)
	for _, e := range entries {
		if !files[e.Name()] {
			t.Errorf("%s has no row", e.Name())
		}
	}
	if len(m.tree.All()) != len(rows) {
		t.Errorf("%d layers in memory, %d on disk", len(m.tree.All()), len(rows))
	}
	for id, v := range m.vms {
		if deep || m.rand.IntN(len(m.vms)) == 0 {
			if got := m.read(t, v.disk); got != v.has {
				t.Errorf("VM %s reads %v, want %v", id, got, v.has)
			}
		}
	}
	for id, want := range m.checkpoints {
		if deep {
			if got := m.read(t, id); got != want {
				t.Errorf("checkpoint %s reads %v, want %v", id, got, want)
			}
		}
	}
}
