package template

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestRemove(t *testing.T) {
	s := newStore(t)
	stays, made := publish(t, s, keyFor(1)), publish(t, s, keyFor(2))
	gatewaytest.Must(t, s.Remove(made.ID, false))
	if diff := cmp.Diff([]string{stays.ID}, names(t, s.Dir())); diff != "" {
		t.Error(diff)
	}
	if err := s.Remove(made.ID, false); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("twice: %v", err)
	}
}

// The disk of a template that was removed stays as long as a VM needs it, with its content.
func TestRemoveInUse(t *testing.T) {
	s := newStore(t)
	made := publish(t, s, keyFor(2))
	before, err := os.ReadFile(made.Disk)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, s.Remove(made.ID, true))
	if all := ids(t, s); len(all) != 0 {
		t.Errorf("listed: %v", all)
	}
	if _, err := s.Find(t.Context(), keyFor(2)); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("found: %v", err)
	}
	if err := s.Remove(made.ID, false); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("twice: %v", err)
	}
	gatewaytest.Must(t, s.Sweep(func(id string) bool { return id == made.ID }))
	if diff := cmp.Diff([]string{"disk"}, names(t, filepath.Join(s.Dir(), made.ID))); diff != "" {
		t.Error(diff)
	}
	if after, err := os.ReadFile(s.Disk(made.ID)); err != nil || string(after) != string(before) {
		t.Errorf("the disk has %d bytes, %v", len(after), err)
	}
	gatewaytest.Must(t, s.Sweep(never))
	if left := names(t, s.Dir()); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// No name leads out of the store, or to a draft.
func TestRemoveRefusesPaths(t *testing.T) {
	s := newStore(t)
	d := newDraft(t, s, keyFor(2))
	outside := filepath.Join(filepath.Dir(s.Dir()), "outside")
	for _, dir := range []string{outside, d.Dir, filepath.Dir(s.Dir())} {
		gatewaytest.Must(t, os.MkdirAll(dir, 0o700))
		gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, manifestFile), []byte("{}"), 0o600))
	}
	for _, id := range []string{
		"", ".", "..", "../outside", "x/../../outside", outside, "/", "a/", "\x00", "../outside\x00", filepath.Base(d.Dir), strings.Repeat("x", 300),
	} {
		for _, inUse := range []bool{true, false} {
			if err := s.Remove(id, inUse); gateway.KindOf(err) != gateway.KindNotFound {
				t.Errorf("%q: %v", id, err)
			}
		}
	}
	for _, dir := range []string{outside, d.Dir, filepath.Dir(s.Dir())} {
		if _, err := os.Stat(filepath.Join(dir, manifestFile)); err != nil {
			t.Error(err)
		}
	}
}

// Sweep removes damaged templates and what is left of removed ones. It keeps the disks in use, the
// other templates and the drafts.
func TestSweep(t *testing.T) {
	s := newStore(t)
	good, removed, damaged, used := publish(t, s, keyFor(1)), publish(t, s, keyFor(2)), publish(t, s, keyFor(3)), publish(t, s, keyFor(4))
	d := newDraft(t, s, keyFor(5))
	gatewaytest.Must(t, s.Remove(removed.ID, true))
	for _, made := range []Template{damaged, used} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(s.Dir(), made.ID, manifestFile), []byte("{"), 0o600))
	}
	gatewaytest.Must(t, s.Sweep(func(id string) bool { return id == used.ID || id == good.ID }))
	if diff := cmp.Diff([]string{filepath.Base(d.Dir), good.ID, used.ID}, names(t, s.Dir())); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(used.Disk); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(used.Memory); !os.IsNotExist(err) {
		t.Errorf("memory that no VM can use: %v", err)
	}
	if _, err := s.Find(t.Context(), keyFor(1)); err != nil {
		t.Error(err)
	}
}

// Sweep removes nothing that it cannot read, nor files that are not its own.
func TestSweepKeepsTheUnreadable(t *testing.T) {
	s := newStore(t)
	made := publish(t, s, keyFor(1))
	file := filepath.Join(s.Dir(), made.ID, manifestFile)
	gatewaytest.Must(t, os.Rename(file, file+".kept"))
	gatewaytest.Must(t, os.Mkdir(file, 0o700)) // read(2) fails
	gatewaytest.Must(t, os.WriteFile(filepath.Join(s.Dir(), "notes"), nil, 0o600))
	if err := s.Sweep(never); err == nil || !strings.Contains(err.Error(), made.ID) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{made.ID, "notes"}, names(t, s.Dir())); diff != "" {
		t.Error(diff)
	}
	gatewaytest.Must(t, os.Remove(file))
	gatewaytest.Must(t, os.Rename(file+".kept", file))
	if _, err := s.Find(t.Context(), keyFor(1)); err != nil {
		t.Error(err)
	}
}
