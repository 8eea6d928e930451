package bench

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
)

// resumeRounds is how often a VM is made in each way. The rounds alternate, so that other load on
// the host falls on both.
const resumeRounds = 5

// newVM has the figures of one VM that was made, and removed again.
type newVM struct {
	host, ssh, cpu   float64 // seconds: until New returned, until sshd answered, of QEMU until then
	memoryMB, diskMB float64 // of QEMU (its proportional share), of the VM's disk
}

// resume measures lodge new, for a VM that is resumed from a template and one that boots.
func resume(t *testing.T) {
	h := harness.New(t)
	h.UseImages(t)
	h.StartLibvirt(t)
	h.StartDaemon(t)
	c := h.Client()
	begun := time.Now()
	makeOnce(t, h, c, false)
	row("lodge new, with its template being made", took(time.Since(begun)), "")
	all := map[bool][]newVM{}
	for range resumeRounds {
		for _, boot := range []bool{false, true} {
			all[boot] = append(all[boot], makeOnce(t, h, c, boot))
		}
	}
	figure := func(boot bool, of func(newVM) float64) float64 {
		var values []float64
		for _, vm := range all[boot] {
			values = append(values, of(vm))
		}
		slices.Sort(values)
		return median(values)
	}
	for _, f := range []struct {
		what, unit, promise string
		of                  func(newVM) float64
	}{
		{"lodge new to SSH", "s", "≤ 0.15 of a boot", func(vm newVM) float64 { return vm.ssh }},
		{"… the host's part", "s", "≤ 1.3 s", func(vm newVM) float64 { return vm.host }},
		{"… CPU time of QEMU", "s", "", func(vm newVM) float64 { return vm.cpu }},
		{"… memory of QEMU", "MB", "", func(vm newVM) float64 { return vm.memoryMB }},
		{"… the VM's disk", "MB", "", func(vm newVM) float64 { return vm.diskMB }},
	} {
		resumed, booted := figure(false, f.of), figure(true, f.of)
		row(f.what+": resumed, booted, ratio", fmt.Sprintf("%.2f %.2f %s %.2f", resumed, booted, f.unit, resumed/booted), f.promise)
	}
}

func makeOnce(t *testing.T, h *harness.Host, c *control.Client, boot bool) (vm newVM) {
	t.Helper()
	ignore := func(gateway.Progress) {}
	begun := time.Now()
	made, err := c.New(t.Context(), gateway.Spec{Name: "vm", Boot: boot}, ignore)
	if err != nil {
		t.Fatal(err)
	}
	vm.host = time.Since(begun).Seconds()
	if _, err := c.Wait(t.Context(), "vm", api.SSH, ignore); err != nil {
		t.Fatal(err)
	}
	vm.ssh = time.Since(begun).Seconds()
	pid := qemuPID(t)
	if vm.cpu, err = cpuSeconds(pid); err != nil {
		t.Fatal(err)
	}
	vm.memoryMB = proportionalMB(t, pid)
	disks, err := filepath.Glob(filepath.Join(h.StateDir, "disks", made.ID.String()+".[iq]*"))
	if err != nil || len(disks) != 1 {
		t.Fatalf("disks of the VM: %v, %v", disks, err)
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(disks[0], &stat); err != nil {
		t.Fatal(err)
	}
	vm.diskMB = float64(stat.Blocks) * 512 / 1e6
	if err := c.Remove(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	return vm
}

// proportionalMB is a process's memory, in which shared pages count in part (proc(5), smaps_rollup).
func proportionalMB(t *testing.T, pid string) float64 {
	t.Helper()
	f, err := os.Open(filepath.Join("/proc", pid, "smaps_rollup"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib float64
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				t.Fatal(err)
			}
			return kib * 1024 / 1e6
		}
	}
	t.Fatal("smaps_rollup has no Pss")
	return 0
}
