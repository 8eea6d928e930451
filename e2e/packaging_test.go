package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Where no udev runs, make up sets the group and mode of /dev/kvm as udev does. It does not change
// a device that was opened.
func TestUpOpensKVM(t *testing.T) {
	group, err := user.LookupGroup("kvm")
	if err != nil {
		t.Skipf("QEMU is not installed: %v", err)
	}
	kvm, err := strconv.ParseUint(group.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ mode, want, group uint32 }{
		"as the kernel makes it": {0o600, 0o660, uint32(kvm)},
		"opened to all":          {0o666, 0o666, 0},
	} {
		t.Run(name, func(t *testing.T) {
			device := kvmDevice(t, tt.mode)
			out, err := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c",
				". ../packaging/common; open_kvm").CombinedOutput()
			if err != nil {
				t.Fatalf("open_kvm: %v\n%s", err, out)
			}
			var got syscall.Stat_t
			if err := syscall.Stat(device, &got); err != nil {
				t.Fatal(err)
			}
			if got.Mode&0o777 != tt.want || got.Gid != tt.group {
				t.Errorf("mode %o, group %d; want %o, %d", got.Mode&0o777, got.Gid, tt.want, tt.group)
			}
		})
	}
}

// kvmDevice mounts a device of root with this mode over /dev/kvm.
func kvmDevice(t *testing.T, mode uint32) string {
	t.Helper()
	const device = "/dev/kvm"
	if _, err := os.Stat(device); err != nil {
		t.Skipf("nothing can be mounted there: %v", err)
	}
	node := filepath.Join("/run", fmt.Sprintf("kvm-%o", mode))
	if err := syscall.Mknod(node, syscall.S_IFCHR|mode, 10<<8|232); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(node, os.FileMode(mode)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(node, device, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(device, syscall.MNT_DETACH) }) // the namespace ends anyway
	return device
}
