package template

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := NewStore(filepath.Join(t.TempDir(), "templates"))
	gatewaytest.Must(t, err)
	return s
}

// keyFor is the key of VMs with that many CPUs.
func keyFor(cpus int) Key {
	return Key{
		Image: "debian-13", Sum: "1234", QEMU: 7002022, Libvirt: 9000000, Machine: "pc", Accel: "tcg", CPU: "maximum", CPUs: cpus, MemoryMiB: 1024,
	}
}

// newDraft makes a draft with a disk that has a hole, a memory, and another file.
func newDraft(t *testing.T, s *Store, key Key) *Draft {
	t.Helper()
	d, err := s.Draft(key)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(d.Disk, bytes.Repeat([]byte("disk"), 1000), 0o600))
	gatewaytest.Must(t, os.Truncate(d.Disk, 3<<20))
	gatewaytest.Must(t, os.WriteFile(d.Memory, bytes.Repeat([]byte("memory"), 1000), 0o600))
	gatewaytest.Must(t, os.WriteFile(filepath.Join(d.Dir, "seed"), []byte("seed"), 0o600))
	return d
}

func publish(t *testing.T, s *Store, key Key) Template {
	t.Helper()
	made, err := newDraft(t, s, key).Publish(t.Context())
	gatewaytest.Must(t, err)
	return made
}

// ids are those of all templates, the one used last first.
func ids(t *testing.T, s *Store) (all []string) {
	t.Helper()
	list, err := s.List()
	gatewaytest.Must(t, err)
	for _, t := range list {
		all = append(all, t.ID)
	}
	return all
}

// names are the entries of a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	gatewaytest.Must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func never(string) bool { return false }

func TestPublish(t *testing.T) {
	s := newStore(t)
	d := newDraft(t, s, keyFor(2))
	made, err := d.Publish(t.Context())
	gatewaytest.Must(t, err)
	if !strings.HasPrefix(made.ID, "debian-13-2cpu-1024mib-") || made.Key != keyFor(2) || time.Since(made.Built) > time.Minute {
		t.Errorf("made %+v", made)
	}
	dir := filepath.Join(s.Dir(), made.ID)
	if diff := cmp.Diff([]string{"disk", "memory", "template.json"}, names(t, dir)); diff != "" {
		t.Error(diff)
	}
	for file, want := range map[string]os.FileMode{dir: 0o711 | os.ModeDir, made.Disk: 0o444, made.Memory: 0o400, s.Dir(): 0o711 | os.ModeDir} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", file, info.Mode(), err, want)
		}
	}
	if made.Disk != s.Disk(made.ID) || made.Bytes < 8<<10 || made.Bytes > 1<<20 {
		t.Errorf("disk %s, %d bytes without the hole", made.Disk, made.Bytes)
	}
	gatewaytest.Must(t, d.Discard())
	if found, err := s.Find(t.Context(), keyFor(2)); err != nil || found != made {
		t.Errorf("found %+v, %v; want %+v", found, err, made)
	}
	if _, err := s.Find(t.Context(), keyFor(3)); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("another size: %v", err)
	}
}

// Every field of the key matters.
func TestFindByKey(t *testing.T) {
	s := newStore(t)
	publish(t, s, keyFor(2))
	for name, change := range map[string]func(*Key){
		"image": func(k *Key) { k.Image = "debian-12" }, "sum": func(k *Key) { k.Sum = "5" }, "qemu": func(k *Key) { k.QEMU++ },
		"libvirt": func(k *Key) { k.Libvirt++ }, "board": func(k *Key) { k.Machine = "q35" }, "accel": func(k *Key) { k.Accel = "kvm" },
		"cpu": func(k *Key) { k.CPU = "other" }, "cpus": func(k *Key) { k.CPUs++ }, "memory": func(k *Key) { k.MemoryMiB++ },
	} {
		key := keyFor(2)
		change(&key)
		if _, err := s.Find(t.Context(), key); gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// List is in the order of the last use, and Find returns the newest of several.
func TestOrder(t *testing.T) {
	s := newStore(t)
	one, two, three := publish(t, s, keyFor(1)), publish(t, s, keyFor(2)), publish(t, s, keyFor(3))
	if diff := cmp.Diff([]string{three.ID, two.ID, one.ID}, ids(t, s)); diff != "" {
		t.Error(diff)
	}
	_, err := s.Find(t.Context(), keyFor(2))
	gatewaytest.Must(t, err)
	if diff := cmp.Diff([]string{two.ID, three.ID, one.ID}, ids(t, s)); diff != "" {
		t.Error(diff)
	}
	changeManifest(t, s, two.ID, func(m *manifest) { m.Built = m.Built.Add(-time.Hour) })
	newer := publish(t, s, keyFor(2))
	if found, err := s.Find(t.Context(), keyFor(2)); err != nil || found.ID != newer.ID {
		t.Errorf("found %s, %v; want %s, not %s", found.ID, err, newer.ID, two.ID)
	}
}

func changeManifest(t *testing.T, s *Store, id string, change func(*manifest)) {
	t.Helper()
	m, err := readManifest(filepath.Join(s.Dir(), id))
	gatewaytest.Must(t, err)
	change(&m)
	text, err := json.Marshal(m)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(filepath.Join(s.Dir(), id, manifestFile), text, 0o600))
}

// An id is that of one template for ever: a VM's record may have it.
func TestIDsDoNotRepeat(t *testing.T) {
	s := newStore(t)
	seen := map[string]bool{}
	for range 10 {
		publish(t, s, keyFor(2))
		for _, id := range ids(t, s) {
			if seen[id] {
				t.Errorf("%s twice", id)
			}
			seen[id] = true
			gatewaytest.Must(t, s.Remove(id, false))
		}
	}
	if len(seen) != 10 {
		t.Errorf("%d ids", len(seen))
	}
}

// Find checks that the files are those that were published.
func TestFindChecks(t *testing.T) {
	cut := func(t *testing.T, file string) {
		t.Helper()
		info, err := os.Stat(file)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, os.Truncate(file, info.Size()-1))
	}
	cutTwice := func(t *testing.T, file string) { // the first byte is the line feed behind it
		t.Helper()
		cut(t, file)
		cut(t, file)
	}
	overwrite := func(text string) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			t.Helper()
			gatewaytest.Must(t, os.WriteFile(file, []byte(text), 0o600))
		}
	}
	remove := func(t *testing.T, file string) {
		t.Helper()
		gatewaytest.Must(t, os.Remove(file))
	}
	for name, row := range map[string]struct {
		file   string
		damage func(t *testing.T, file string)
		want   gateway.Kind // none if empty
	}{
		"disk cut":              {diskFile, cut, gateway.KindInvalid},
		"disk altered":          {diskFile, alter, gateway.KindInvalid},
		"disk absent":           {diskFile, remove, gateway.KindInvalid},
		"disk replaced":         {diskFile, replace, ""},
		"disk touched":          {diskFile, touch, ""},
		"memory cut":            {memoryFile, cut, gateway.KindInvalid},
		"memory altered":        {memoryFile, alter, gateway.KindInvalid},
		"memory absent":         {memoryFile, remove, gateway.KindInvalid},
		"memory replaced":       {memoryFile, replace, ""},
		"memory touched":        {memoryFile, touch, ""},
		"manifest cut":          {manifestFile, cutTwice, gateway.KindNotFound},
		"manifest empty":        {manifestFile, overwrite(""), gateway.KindNotFound},
		"manifest absent":       {manifestFile, remove, gateway.KindNotFound},
		"manifest of something": {manifestFile, overwrite("[1]"), gateway.KindNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			made := publish(t, s, keyFor(2))
			row.damage(t, filepath.Join(s.Dir(), made.ID, row.file))
			found, err := s.Find(t.Context(), keyFor(2))
			if row.want == "" {
				if err != nil || found.ID != made.ID {
					t.Errorf("found %s, %v", found.ID, err)
				}
				return
			}
			e, ok := errors.AsType[*gateway.Error](err)
			if !ok || e.Kind != row.want || row.want == gateway.KindInvalid && !strings.Contains(e.Hint, "lodge image rm "+made.ID) {
				t.Errorf("got %v (%+v), want %s", err, e, row.want)
			}
		})
	}
}

// alter changes one byte of a file. Its size and its time stay.
func alter(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	gatewaytest.Must(t, err)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	gatewaytest.Must(t, err)
	_, err = f.WriteAt([]byte("!"), info.Size()-1)
	gatewaytest.Must(t, errors.Join(err, f.Close(), os.Chtimes(file, info.ModTime(), info.ModTime())))
}

// replace puts a copy in place of a file, as a restored backup does.
func replace(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, errors.Join(os.WriteFile(file+".copy", text, 0o600), os.Rename(file+".copy", file)))
}

// touch changes a file's time of the last change, as programs for backups do.
func touch(t *testing.T, file string) {
	t.Helper()
	gatewaytest.Must(t, os.Chtimes(file, time.Now(), time.Now()))
}

// After a restored backup, or a program that touches the files, the checksums are computed once.
func TestFindRecordsStamps(t *testing.T) {
	s := newStore(t)
	made := publish(t, s, keyFor(2))
	touch(t, made.Disk)
	replace(t, made.Memory)
	_, err := s.Find(t.Context(), keyFor(2))
	gatewaytest.Must(t, err)
	m, err := readManifest(filepath.Join(s.Dir(), made.ID))
	gatewaytest.Must(t, err)
	for file, p := range map[string]part{made.Disk: m.Disk, made.Memory: m.Memory} {
		if now, err := statPart(file); err != nil || now.Stamp != p.Stamp || p.Sum == "" {
			t.Errorf("%s: %+v is recorded, and it is %+v, %v", file, p, now, err)
		}
	}
	alter(t, made.Disk)
	if _, err := s.Find(t.Context(), keyFor(2)); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("altered after that: %v", err)
	}
	gatewaytest.Must(t, s.Remove(made.ID, true))
	s.restamp(made.ID, m) // a Find that began before
	if all := ids(t, s); len(all) != 0 {
		t.Errorf("a template that was removed exists again: %v", all)
	}
}

// The check of a file that was replaced ends with its context, and then the template is not damaged.
func TestFindEndsWithItsContext(t *testing.T) {
	s := newStore(t)
	made := publish(t, s, keyFor(2))
	replace(t, made.Disk)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Find(ctx, keyFor(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What a daemon left that was killed while it made a template is removed by the next.
func TestNewStoreRemovesDrafts(t *testing.T) {
	s := newStore(t)
	made := publish(t, s, keyFor(2))
	newDraft(t, s, keyFor(3))
	if _, err := NewStore(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{made.ID}, names(t, s.Dir())); diff != "" {
		t.Error(diff)
	}
}

// A stop at any step of a publication, such as by kill -9, leaves the old templates, or them and the
// new one, complete.
func TestStopAtEveryStep(t *testing.T) {
	steps := len((&Draft{store: &Store{}}).steps(t.Context(), ""))
	for n := range steps + 1 {
		s := newStore(t)
		old := publish(t, s, keyFor(2))
		d := newDraft(t, s, keyFor(3))
		for _, step := range d.steps(t.Context(), filepath.Join(s.Dir(), "new"))[:n] {
			gatewaytest.Must(t, step())
		}
		s, err := NewStore(s.Dir())
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, s.Sweep(never))
		_, errOld := s.Find(t.Context(), keyFor(2))
		_, errNew := s.Find(t.Context(), keyFor(3))
		want := []string{old.ID}
		if errNew == nil {
			want = append(want, "new")
		}
		if diff := cmp.Diff(want, names(t, s.Dir())); diff != "" || errOld != nil || errNew != nil && gateway.KindOf(errNew) != gateway.KindNotFound {
			t.Errorf("after step %d: %v, %v\n%s", n, errOld, errNew, diff)
		}
		if n == steps && errNew != nil || n == 0 && errNew == nil {
			t.Errorf("after %d of %d steps: %v", n, steps, errNew)
		}
	}
}

// A sweep, which the removal of any VM begins, does not disturb a publication.
func TestSweepDuringPublication(t *testing.T) {
	for n := range len((&Draft{store: &Store{}}).steps(t.Context(), "")) + 1 {
		s := newStore(t)
		d := newDraft(t, s, keyFor(2))
		for i, step := range d.steps(t.Context(), filepath.Join(s.Dir(), "new")) {
			if i == n {
				gatewaytest.Must(t, s.Sweep(never))
			}
			if err := step(); err != nil {
				t.Errorf("sweep before step %d: step %d: %v", n, i, err)
				break
			}
		}
		if _, err := s.Find(t.Context(), keyFor(2)); err != nil {
			t.Errorf("sweep before step %d: %v", n, err)
		}
	}
}

// A full disk leaves nothing of the template, and the error names it.
func TestPublishOnAFullDisk(t *testing.T) {
	dir := sandboxtest.SmallDisk(t, 1<<20)
	s, err := NewStore(filepath.Join(dir, "templates"))
	gatewaytest.Must(t, err)
	old := publish(t, s, keyFor(2))
	d := newDraft(t, s, keyFor(3))
	gatewaytest.Must(t, os.Remove(filepath.Join(d.Dir, "seed"))) // publication would make room by it
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 2<<20), 0o600); !durable.IsFull(err) {
		t.Fatalf("fill: %v", err)
	}
	if _, err := d.Publish(t.Context()); !durable.IsFull(err) {
		t.Errorf("got %v", err)
	}
	gatewaytest.Must(t, d.Discard())
	if diff := cmp.Diff([]string{old.ID}, names(t, s.Dir())); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Find(t.Context(), keyFor(2)); err != nil {
		t.Errorf("the old one: %v", err)
	}
}

// The store works whatever its path contains.
func TestPathWithPatterns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[a]*\\b", "templates")
	s, err := NewStore(dir)
	gatewaytest.Must(t, err)
	made := publish(t, s, keyFor(2))
	newDraft(t, s, keyFor(3))
	_, err = NewStore(dir)
	gatewaytest.Must(t, err)
	if diff := cmp.Diff([]string{made.ID}, names(t, dir)); diff != "" {
		t.Error(diff)
	}
}
