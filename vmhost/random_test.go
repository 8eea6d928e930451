package vmhost

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/gateway/store"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
)

var verbs = flag.Int("verbs", 80, "how many random verbs are done")

// Whatever is done to VMs in whatever order, and wherever the daemon is killed meanwhile, in a verb or
// in the start after it: each VM has its disk, mail, objects and shares from before or from after the
// verb, all of them together, and so has each checkpoint. Nothing dangles.
func TestRandomVerbs(t *testing.T) {
	w := newWorld(t, 512<<20)
	for n := range *verbs {
		name := w.step(t)
		w.trace = append(w.trace, name)
		w.checkRests(t)
		if t.Failed() {
			t.Fatalf("verb %d of\n%s", n, strings.Join(w.trace, "\n"))
		}
	}
	t.Logf("verbs: %v\ncrashes: %v, of them in starts: %d", w.done, w.crashes, w.restarts)
}

// blocks is how many blocks of a disk the guests write to.
const blocks = 3

// state is all that a checkpoint covers, of a VM or a checkpoint.
type state struct {
	Disk  [1 + blocks]byte // a byte of the image, and of each block
	Parts [2]int
	Share uint16
}

// saved is a checkpoint.
type saved struct {
	Kind  gateway.CheckpointKind
	State state
}

// service is a VM. Values are copies; Saved is never changed in place.
type service struct {
	Now   state
	Saved []saved
}

// model is what there is, by the VMs' names.
type model map[string]service

// with is a model in which one VM differs.
func (m model) with(name string, s service) model {
	m = maps.Clone(m)
	m[name] = s
	return m
}

// world is a host, and what outlives its daemons.
type world struct {
	h      *Host
	config Config
	store  *store.Store
	parts  []*part
	is     model
	seen   map[string][1 + blocks]byte // contents of disks, by the times of their files

	left     int // points until the next crash; negative: none
	room     int // points until the disk is full; negative: it never is
	images   int
	trace    []string
	done     map[string]int
	crashes  map[string]int
	restarts int
}

func newWorld(t *testing.T, bytes int64) *world {
	t.Helper()
	dir := sandboxtest.SmallDisk(t, bytes) // in memory: many small files are synced
	s, err := store.Open(t.Context(), filepath.Join(dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, s.Close()) })
	w := &world{
		store: s, parts: []*part{newPart(), newPart()}, is: model{}, seen: map[string][1 + blocks]byte{}, left: -1, room: -1,
		done: map[string]int{}, crashes: map[string]int{},
	}
	w.config = Config{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Domain: "lodge.localhost",
		Layers: failingLayers{s.Layers(), w.at}, Checkpoints: failingCheckpoints{s.Checkpoints(), w.at},
		LibvirtSocket: filepath.Join(dir, "none"), OnRemove: []func(context.Context, gateway.ID) error{w.onRemove},
	}
	for _, p := range w.parts {
		w.config.Parts = append(w.config.Parts, failingPart{p, w.at})
	}
	w.image(t)
	w.open(t)
	return w
}

// at is a point at which the daemon may be killed.
func (w *world) at(point string) {
	if w.left--; w.left == -1 {
		w.crashes[point]++
		panic(crash{point})
	}
	if w.room--; w.room == -1 {
		w.fill()
	}
}

func (w *world) onRemove(_ context.Context, id gateway.ID) error {
	for _, p := range w.parts {
		delete(p.now, id)
		w.at("removed from a part")
	}
	return nil
}

// image builds the image again, with another content.
func (w *world) image(t *testing.T) {
	t.Helper()
	w.images++
	dir := filepath.Join(w.config.StateDir, "images")
	libvirttest.TinyDisk(t, filepath.Join(dir, "tiny.raw"))
	f, err := os.OpenFile(filepath.Join(dir, "tiny.raw"), os.O_WRONLY, 0)
	gatewaytest.Must(t, err)
	_, err = f.WriteAt([]byte{byte(w.images)}, blockAt(0))
	gatewaytest.Must(t, errors.Join(err, f.Close()))
	type part struct {
		File  string `json:"file"`
		Bytes int    `json:"bytes"`
	}
	text, err := json.Marshal(map[string]any{
		"name": "tiny", "disk": part{"tiny.raw", 1 << 20}, "kernel": part{"tiny.kernel", 4}, "initrd": part{"tiny.kernel", 4},
	})
	gatewaytest.Must(t, errors.Join(err, os.WriteFile(filepath.Join(dir, "tiny.kernel"), []byte("none"), 0o600)))
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "tiny.json"), text, 0o600))
}

// blockAt is where a block is on the disk: that of the image in it, the others behind its end.
func blockAt(i int) int64 { return 512<<10 + int64(i)<<20 }

// open starts a daemon, as Run and the workers do but for libvirtd.
func (w *world) open(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	directory, err := gateway.OpenDirectory(ctx, failingVMs{w.store, w.at})
	gatewaytest.Must(t, err)
	w.config.Directory = directory
	w.h, err = New(w.config)
	gatewaytest.Must(t, err)
	w.h.at = w.at
	gatewaytest.Must(t, w.h.layers.Recover(ctx))
	gatewaytest.Must(t, errors.Join(w.h.giveUpHalfMade(ctx), w.h.removeMemories()))
	w.h.recoverCheckpoints(ctx)
	close(w.h.ready)
	gatewaytest.Must(t, w.h.sweepLayers(ctx, gateway.ID{})) // as the worker of another VM may
	for _, m := range w.h.dir.All() {
		if m.Desired == gateway.Removed {
			gatewaytest.Must(t, w.h.removeData(ctx, m.ID))
			continue
		}
		gatewaytest.Must(t, w.h.settleDisk(ctx, m.ID, libvirt.Absent))
		if m.Rollback != nil {
			gatewaytest.Must(t, w.h.rewind(ctx, m))
		}
	}
	gatewaytest.Must(t, w.h.sweepLayers(ctx, gateway.ID{}))
}

// killed calls f, in which the daemon is killed at the nth point that it passes, and reports whether it
// was.
func (w *world) killed(n int, f func()) (killed bool) {
	w.left = n
	defer func() {
		w.left = -1
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			killed = true
		}
	}()
	f()
	return false
}

// step does one random verb, in which the daemon may be killed.
func (w *world) step(t *testing.T) (name string) {
	t.Helper()
	all := w.verbs()
	verb := all[rand.IntN(len(all))] //nolint:gosec // a test
	do, after := verb.prepare(t)
	if do == nil {
		return verb.name + ": not now"
	}
	w.done[verb.name]++
	want := after[len(after)-1:]
	if w.killed(rand.IntN(40)-5, func() { gatewaytest.Must(t, do()) }) { //nolint:gosec // as above
		verb.name += " killed"
		want = append(after, w.is)
		for w.killed(rand.IntN(20)-10, func() { w.open(t) }) { //nolint:gosec // as above
			w.restarts++
		}
		for _, p := range w.parts {
			p.held = 0 // with the process
		}
	}
	got := w.read(t)
	if !slices.ContainsFunc(want, func(m model) bool { return cmp.Equal(m, got) }) {
		t.Errorf("%s: there is a third state; of the last possible one it differs by -want +got:\n%s", verb.name, cmp.Diff(want[0], got))
	}
	w.is = got
	return verb.name
}

// read reads what there is.
func (w *world) read(t *testing.T) model {
	t.Helper()
	m := model{}
	for _, vm := range w.h.dir.All() {
		s := service{Now: state{Disk: w.content(t, vm.Disk), Share: shared(vm.Shares)}}
		for i, p := range w.parts {
			s.Now.Parts[i] = p.now[vm.ID]
		}
		for _, c := range w.h.checkpoints.Of(vm.ID) {
			of := state{Disk: w.content(t, c.Layer), Share: shared(c.Shares)}
			for i, p := range w.parts {
				of.Parts[i] = p.marks[vm.ID][c.ID]
			}
			s.Saved = append(s.Saved, saved{c.Kind, of})
		}
		m[vm.Name] = s
	}
	return m
}

// shared is the port that is shared; 0 for none.
func shared(all []gateway.Share) uint16 {
	if len(all) == 0 {
		return 0
	}
	return all[0].Port
}

var dumped = regexp.MustCompile(`(?m)^([0-9a-f]{8,}):  ([0-9a-f]{2}) `)

// content is what a disk has. It is read again when a file of it was written to.
func (w *world) content(t *testing.T, id gateway.LayerID) (has [1 + blocks]byte) {
	t.Helper()
	chain, err := w.h.layers.Chain(id)
	gatewaytest.Must(t, err)
	var files strings.Builder
	for _, l := range chain {
		info, err := os.Stat(w.h.layers.Path(l))
		gatewaytest.Must(t, err)
		fmt.Fprintln(&files, l.ID, info.ModTime().UnixNano(), info.Size())
	}
	key := files.String()
	if has, ok := w.seen[key]; ok {
		return has
	}
	args := []string{"-r", "-t", "unsafe", "-f", string(chain[0].Format)}
	for i := range has {
		args = append(args, "-c", fmt.Sprintf("read -v %d 512", blockAt(i)))
	}
	out, err := exec.CommandContext(t.Context(), "qemu-io", append(args, w.h.layers.Path(chain[0]))...).CombinedOutput()
	if err != nil {
		t.Fatalf("read %v: %v: %s", chain, err, out)
	}
	found := map[int64]byte{}
	for _, line := range dumped.FindAllSubmatch(out, -1) {
		at, err := strconv.ParseInt(string(line[1]), 16, 64)
		gatewaytest.Must(t, err)
		b, err := strconv.ParseUint(string(line[2]), 16, 8)
		gatewaytest.Must(t, err)
		found[at] = byte(b)
	}
	for i := range has {
		b, ok := found[blockAt(i)]
		if !ok {
			t.Fatalf("block %d is not in %s", i, out)
		}
		has[i] = b
	}
	w.seen[key] = has
	return has
}

// checkRests checks that there is nothing but what VMs and their checkpoints need, and all of that.
func (w *world) checkRests(t *testing.T) {
	t.Helper()
	vms, files := map[gateway.ID]bool{}, map[string]bool{}
	tops := w.h.checkpoints.Layers()
	for _, m := range w.h.dir.All() {
		vms[m.ID], tops[m.Disk] = true, true
		files[m.ID.String()+".seed"] = true
		if !m.Ready || m.Rollback != nil || m.Desired == gateway.Removed {
			t.Errorf("unfinished: %+v", m)
		}
		for _, p := range w.parts {
			w.checkMarks(t, m, p)
		}
	}
	for _, p := range w.parts {
		for id, marks := range p.marks {
			if _, has := p.now[id]; !vms[id] && (len(marks) > 0 || has) || p.held != 0 {
				t.Errorf("of %s, which is gone, a Part has %v; %d are held back", id, marks, p.held)
			}
		}
	}
	needed := map[gateway.LayerID]bool{}
	for top := range tops {
		chain, err := w.h.layers.Chain(top)
		gatewaytest.Must(t, err)
		for _, l := range chain {
			needed[l.ID], files[filepath.Base(l.File)] = true, true
			if l.State != gateway.LayerReady && (l.State != gateway.LayerLeft || vms[l.VM]) {
				t.Errorf("a layer in use is %+v", l)
			}
		}
	}
	rows, err := w.store.Layers().All(t.Context())
	gatewaytest.Must(t, err)
	if all := w.h.layers.All(); len(all) != len(needed) || len(rows) != len(needed) {
		t.Errorf("%d layers are needed, there are %d, and %d rows", len(needed), len(all), len(rows))
	}
	want := slices.Sorted(maps.Keys(files))
	if diff := cmp.Diff(want, names(t, w.h.cfg.diskDir(), "*")); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// checkMarks checks that a Part has the marks of a VM's checkpoints, and no others.
func (w *world) checkMarks(t *testing.T, m gateway.VM, p *part) {
	t.Helper()
	var want []gateway.CheckpointID
	for _, c := range w.h.checkpoints.Of(m.ID) {
		want = append(want, c.ID)
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(p.marks[m.ID])); !slices.Equal(want, got) {
		t.Errorf("marks of %s: %v, want %v", m.Name, got, want)
	}
}
