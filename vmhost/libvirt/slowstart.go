package libvirt

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// qemuUser is the user that QEMU runs as on Debian.
const qemuUser = "libvirt-qemu"

// slowStart looks for known causes of a slow start of a domain. cause is empty when there is none.
//
// libvirtd probes each QEMU program's capabilities once, and caches them while access to /dev/kvm
// stays the same. Where its own check of the device and QEMU's differ, it probes again at every
// start, for 8 to 42 s.
func slowStart(device, proc string) (cause, remedy string) {
	if account, err := user.Lookup(qemuUser); err == nil && isClosed(device, account) {
		return fmt.Sprintf("user %s cannot open %s, so libvirtd examines QEMU anew at every start", qemuUser, device),
			fmt.Sprintf("Open it as udev does: chgrp kvm %s && chmod 660 %s", device, device)
	}
	if hasOrphan(proc) {
		return "process 1 does not reap orphans, so libvirtd waits for those of QEMU",
			"Run an init as process 1 that reaps orphans (for a container: docker run --init)."
	}
	return "", ""
}

// isClosed reports whether device exists and its mode denies it to the account.
func isClosed(device string, account *user.User) bool {
	info, err := os.Stat(device)
	if err != nil {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	groups, err := account.GroupIds()
	if err != nil {
		return false
	}
	const readWrite = 0o6
	mode := info.Mode().Perm()
	switch {
	case account.Uid == strconv.FormatUint(uint64(owner.Uid), 10):
		return mode>>6&readWrite != readWrite
	case slices.Contains(append(groups, account.Gid), strconv.FormatUint(uint64(owner.Gid), 10)):
		return mode>>3&readWrite != readWrite
	default:
		return mode&readWrite != readWrite
	}
}

// hasOrphan reports whether a QEMU that has ended is still a child of process 1 (proc_pid_stat(5):
// "pid (comm) state ppid").
func hasOrphan(proc string) bool {
	files, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(files, func(file string) bool {
		stat, err := os.ReadFile(file)
		if err != nil {
			return false // it has ended
		}
		end := bytes.LastIndexByte(stat, ')')
		return end >= 0 && bytes.Contains(stat[:end], []byte("(qemu-system")) && bytes.HasPrefix(stat[end:], []byte(") Z 1 "))
	})
}
