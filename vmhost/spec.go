package vmhost

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"strings"

	"lodge/gateway"
)

// Limits of a VM's size. The host's memory is another limit.
const (
	maxCPUs      = 64
	minMemoryMiB = 128
	minDiskGiB   = 2
	maxDiskGiB   = 16 << 10
)

// fill puts defaults where size has zero values.
func fill(size, defaults gateway.Size) gateway.Size {
	size.Image = cmp.Or(size.Image, defaults.Image)
	size.CPUs = cmp.Or(size.CPUs, defaults.CPUs)
	size.MemoryMiB = cmp.Or(size.MemoryMiB, defaults.MemoryMiB)
	size.DiskGiB = cmp.Or(size.DiskGiB, defaults.DiskGiB)
	return size
}

// check fails with KindInvalid for a spec that is impossible on a host with hostMiB of memory.
// Directory.Create checks the name.
func check(spec gateway.Spec, hostMiB int) error {
	switch {
	case spec.Image != strings.Trim(spec.Image, ".") || strings.ContainsAny(spec.Image, "/\x00"):
		return gateway.Invalid("%q is not the name of an image", spec.Image).WithHint("lodge image ls lists the images.")
	case spec.CPUs < 1 || spec.CPUs > maxCPUs:
		return gateway.Invalid("%d CPUs are not possible", spec.CPUs).WithHint("Use 1 to %d.", maxCPUs)
	case spec.MemoryMiB < minMemoryMiB || spec.MemoryMiB > hostMiB:
		return gateway.Invalid("%d MiB of memory are not possible", spec.MemoryMiB).
			WithHint("Use %d to %d MiB, which is what this host has.", minMemoryMiB, hostMiB)
	case spec.DiskGiB < minDiskGiB || spec.DiskGiB > maxDiskGiB:
		return gateway.Invalid("a disk of %d GiB is not possible", spec.DiskGiB).WithHint("Use %d to %d GiB.", minDiskGiB, maxDiskGiB)
	}
	return checkUserData(spec.UserData)
}

func checkUserData(text string) error {
	switch {
	case len(text) > gateway.MaxUserDataBytes:
		return gateway.Invalid("the user data has %d bytes; at most %d are possible", len(text), gateway.MaxUserDataBytes).
			WithHint("Let a script in it fetch larger data.")
	case text != "" && !strings.HasPrefix(text, "#cloud-config") && !strings.HasPrefix(text, "#!"):
		return gateway.Invalid("the user data is neither cloud-config nor a script").
			WithHint("Its first line must be \"#cloud-config\", or \"#!\" with an interpreter.")
	}
	return nil
}

// hostMemory reads the host's memory in MiB (proc(5), /proc/meminfo).
func hostMemory() (int, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the host's memory: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var kib int
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kib); err == nil {
			return kib >> 10, nil
		}
	}
	return 0, fmt.Errorf("read the host's memory: /proc/meminfo has no MemTotal")
}
