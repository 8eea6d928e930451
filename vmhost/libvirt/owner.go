package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Seal makes a file one that QEMU can read, and cannot write to: no guest changes a disk below its own
// or another's. It is no error on a host without QEMU's group.
func Seal(file string) error { return give(file, 0o440) }

// Lend lets QEMU read the disk of a VM that is off; a domain that has it as its disk makes it QEMU's own
// while it runs. It is no error on a host without QEMU's group.
func Lend(file string) error { return give(file, 0o640) }

// give makes a file root's, and QEMU's group the one that the mode is about.
func give(file string, mode fs.FileMode) error {
	group, err := user.LookupGroup(qemuUser)
	if err != nil {
		return nil //nolint:nilerr // QEMU runs as root there
	}
	id, err := strconv.ParseUint(group.Gid, 10, 31)
	if err != nil {
		return fmt.Errorf("let QEMU read a disk: %w", err)
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm() == mode {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == 0 && uint64(owner.Gid) == id {
			return nil
		}
	}
	if err := errors.Join(os.Chown(file, 0, int(id)), os.Chmod(file, mode)); err != nil { //nolint:gosec // it has 31 bits
		return fmt.Errorf("let QEMU read a disk: %w", err)
	}
	return nil
}
