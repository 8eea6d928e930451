package bench

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
)

var before = flag.String("before", "", "another image, to boot in turn with debian-13")

// bootRounds is how often each image boots. The rounds alternate, so that other load on the host
// falls on both images.
const bootRounds = 3

// boot measures the CPU time of QEMU from its start until sshd answers, for a new VM without user
// data. Unlike the duration, it depends little on other load.
func boot(t *testing.T) {
	h := harness.New(t)
	h.UseImages(t)
	h.StartLibvirt(t)
	h.StartDaemon(t)
	makeOnce(t, h, h.Client(), false) // so that no template is made meanwhile
	images := slices.DeleteFunc([]string{*before, "debian-13"}, func(name string) bool { return name == "" })
	used := map[string][]float64{}
	for range bootRounds {
		for _, name := range images {
			used[name] = append(used[name], bootOnce(t, h.Client(), name))
		}
	}
	for _, name := range images {
		slices.Sort(used[name])
		row("CPU time of QEMU until sshd answers, "+name, fmt.Sprintf("%.1f s", median(used[name])), fmt.Sprintf("%.1f", used[name]))
	}
	if *before != "" {
		row("… of debian-13, compared", fmt.Sprintf("%.2f", median(used["debian-13"])/median(used[*before])), "≤ 0.6")
	}
}

// median is the middle of sorted values.
func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

// bootOnce makes a VM, waits for its sshd, removes it, and returns the CPU seconds that QEMU has
// used.
func bootOnce(t *testing.T, c *control.Client, image string) float64 {
	t.Helper()
	ignore := func(gateway.Progress) {}
	if _, err := c.New(t.Context(), gateway.Spec{Name: "boot", Boot: true, Size: gateway.Size{Image: image}}, ignore); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), "boot", api.SSH, ignore); err != nil {
		t.Fatal(err)
	}
	seconds, err := cpuSeconds(qemuPID(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), "boot"); err != nil {
		t.Fatal(err)
	}
	return seconds
}

// qemuPID is the process id of the one QEMU that runs.
func qemuPID(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/run/libvirt/qemu/lodge-[0-9a-f]*.pid") // not a template's
	if err != nil || len(files) != 1 {
		t.Fatalf("%d QEMU processes, not one: %v", len(files), err)
	}
	pid, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pid))
}

// cpuSeconds is the CPU time of a process so far: utime and stime of proc_pid_stat(5), in ticks of
// a hundredth of a second.
func cpuSeconds(pid string) (float64, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name, in parentheses, may have spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU time: %d fields", len(fields))
	}
	user, errUser := strconv.Atoi(fields[11])
	system, errSystem := strconv.Atoi(fields[12])
	return float64(user+system) / 100, cmp.Or(errUser, errSystem)
}
