package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/api"
)

const (
	undoRounds = 7
	undoList   = 200 // checkpoints that are listed
)

// stalls has a process look at the clock every 2 ms, for 4 s, and write to a file and sync it, and
// prints its longest pause in milliseconds: without a checkpoint, and with one that is made in the
// second half.
const stalls = `python3 - <<'END'
import os, time
f = os.open('/home/lodge/stalls', os.O_CREAT | os.O_WRONLY)
def longest(until):
    pause, last = 0, time.monotonic()
    while last < until:
        os.pwrite(f, b'x' * 512, 0)
        time.sleep(0.002)
        now = time.monotonic()
        pause, last = max(pause, now - last), now
    return pause * 1000
begun = time.monotonic()
quiet = longest(begun + 2)
open('/home/lodge/half', 'w').close()
print(quiet, longest(begun + 4))
END`

// undo measures checkpoints, rollbacks and forks of a running VM.
func undo(t *testing.T) {
	h := harness.New(t)
	h.UseImages(t)
	h.StartLibvirt(t)
	h.StartDaemon(t)
	c, ignore := h.Client(), func(gateway.Progress) {}
	if _, err := c.New(t.Context(), gateway.Spec{Name: "undo"}, ignore); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), "undo", api.SSH, ignore); err != nil {
		t.Fatal(err)
	}
	vm := h.VM("undo")
	vm.Run(t, "sudo systemctl is-system-running --wait")
	var checkpoint, quiet, stalled, list []float64
	for n := range undoRounds {
		took, without, with := stalledBy(t, vm, func() {
			h.Lodge(t, "checkpoint", "undo", fmt.Sprint("round", n))
		})
		checkpoint, quiet, stalled = append(checkpoint, took), append(quiet, without), append(stalled, with)
	}
	row("lodge checkpoint of a running VM", milliseconds(checkpoint), "≤ 300 ms")
	row("… the longest pause of a process: without, with", milliseconds(quiet)+" "+milliseconds(stalled), "≤ 100 ms more")
	timed := func(f func() error) float64 {
		t.Helper()
		begun := time.Now()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		return float64(time.Since(begun)) / 1e6
	}
	rollbacks(t, h, timed)
	forks(t, h, timed)
	before := diskBytes(t, h)
	for n := len(allCheckpoints(t, h)); n < undoList; n++ {
		if _, err := c.Checkpoint(t.Context(), "undo", gateway.CheckpointRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for range undoRounds {
		list = append(list, timed(func() error { _, err := c.Checkpoints(t.Context(), "undo"); return err }))
	}
	row(fmt.Sprintf("lodge checkpoints, of %d", undoList), milliseconds(list), "≤ 50 ms")
	row("… what the disks of a VM that does nothing grew by", fmt.Sprintf("%.0f MB", float64(diskBytes(t, h)-before)/1e6), "")
	if err := c.Remove(t.Context(), "undo"); err != nil {
		t.Fatal(err)
	}
}

// stalledBy calls f in the second half of stalls, and returns how long it took and the pauses, all in
// milliseconds.
func stalledBy(t *testing.T, vm *harness.VM, f func()) (took, without, with float64) {
	t.Helper()
	vm.Run(t, "rm -f half")
	printed := make(chan harness.Result, 1)
	go func() { printed <- vm.Try(t, stalls) }()
	harness.Eventually(t, "half of the time is over", time.Minute, func() error {
		if r := vm.Try(t, "test -e half"); r.Code != 0 {
			return fmt.Errorf("not yet: %s", r.Text())
		}
		return nil
	})
	begun := time.Now()
	f()
	took = float64(time.Since(begun)) / 1e6
	r := <-printed
	if _, err := fmt.Sscan(r.Stdout, &without, &with); err != nil {
		t.Fatalf("%s: %v", r.Text(), err)
	}
	return took, without, with
}

// rollbacks measures the host's part: until the domain runs again, in turn with one that goes on from
// memory.
func rollbacks(t *testing.T, h *harness.Host, timed func(func() error) float64) {
	t.Helper()
	c := h.Client()
	if _, err := c.Checkpoint(t.Context(), "undo", gateway.CheckpointRequest{Name: "memory", Memory: true}); err != nil {
		t.Fatal(err)
	}
	all := map[string][]float64{}
	for range undoRounds {
		for _, to := range []string{"round0", "memory"} {
			all[to] = append(all[to], timed(func() error { _, err := c.Rollback(t.Context(), "undo", to); return err }))
		}
	}
	row("lodge rollback, until the domain runs", milliseconds(all["round0"]), "≤ 300 ms")
	row("… to a checkpoint with memory", milliseconds(all["memory"]), "")
}

// forks measures the host's part of a fork of the running VM, in phases, in turn with a new VM that is
// resumed.
func forks(t *testing.T, h *harness.Host, timed func(func() error) float64) {
	t.Helper()
	c := h.Client()
	var fork, fresh []float64
	phases := map[string][]float64{}
	for range undoRounds {
		last, phase := time.Now(), ""
		next := func(p gateway.Progress) {
			phases[phase] = append(phases[phase], float64(time.Since(last))/1e6)
			last, phase = time.Now(), p.Phase
		}
		fork = append(fork, timed(func() error { _, err := c.Fork(t.Context(), "undo", "", "twin", next); return err }))
		next(gateway.Progress{})
		fresh = append(fresh, timed(func() error {
			_, err := c.New(t.Context(), gateway.Spec{Name: "other"}, func(gateway.Progress) {})
			return err
		}))
		for _, name := range []string{"twin", "other"} {
			if err := c.Remove(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	row("lodge fork of a running VM, until the domain runs", milliseconds(fork), "≤ 300 ms")
	for _, phase := range []string{"checkpoint", "disk", "define"} {
		row("… "+phase, milliseconds(phases[phase]), "")
	}
	row("lodge new, until the domain runs", milliseconds(fresh), "≤ 300 ms")
}

func allCheckpoints(t *testing.T, h *harness.Host) []api.Checkpoint {
	t.Helper()
	all, err := h.Client().Checkpoints(t.Context(), "undo")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// diskBytes is what all disks take.
func diskBytes(t *testing.T, h *harness.Host) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(h.StateDir, "disks"), func(path string, _ os.DirEntry, err error) error {
		var stat syscall.Stat_t
		if err == nil {
			err = syscall.Stat(path, &stat)
		}
		bytes += stat.Blocks * 512
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// milliseconds is the median of values.
func milliseconds(values []float64) string {
	slices.Sort(values)
	return fmt.Sprintf("%.0f ms", median(values))
}
