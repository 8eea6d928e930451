package sandboxtest

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
)

// initialize runs as pid 1: it prepares the namespaces, runs the tests and reaps orphans until they
// end.
func initialize(options []Option) int {
	signals := forwardable()
	if err := prepare(options); err != nil {
		return fail("%v", err)
	}
	if err := os.Setenv(marker, netNamespace()); err != nil {
		return fail("%v", err)
	}
	tests, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fail("start tests: %v", err)
	}
	go forward(signals, tests.Pid)
	return reapUntil(tests.Pid)
}

// reapUntil waits for every child, adopted ones included, and returns the exit code of one.
func reapUntil(pid int) int {
	for {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fail("wait for tests: %v", err)
		case got == pid:
			return exitCode(status)
		}
	}
}

// prepare makes the mounts and the network of the new namespaces.
func prepare(options []Option) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// The old /sys shows the interfaces of the machine. It is unmounted with all mounts below it,
	// control groups too: a libvirtd in the sandbox can leave none behind.
	if err := syscall.Unmount("/sys", syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("unmount /sys: %w", err)
	}
	if err := syscall.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	for _, option := range options {
		if err := option(); err != nil {
			return err
		}
	}
	return nil
}
