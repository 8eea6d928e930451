package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"lodge/vmhost/disk"
)

// Layout of an image's disk: an MBR with one bootable Linux partition from 1 MiB to the end; GRUB
// between the two.
const (
	sectorBytes    = 512
	diskBytes      = 2 << 30 // the smallest disk of a VM; the file system grows at boot
	partitionStart = 1 << 20
	mbrCodeBytes   = 440 // boot code; the disk's signature, the partition table and 55 aa follow
	diskSignature  = disk.Signature
	linuxPartition = 0x83
	bootFlag       = 0x80
)

// rootDevice names the root file system for the kernel and for fstab. It is the same in every image
// and VM, also where an exported disk is not /dev/vda.
const rootDevice = "PARTUUID=4c4f4447-01"

// cmdline is the kernel's command line, under GRUB and for direct boot. cryptomgr.notests leaves
// out self-tests of ciphers (5 of 15 CPU seconds of the kernel under TCG). The list of security
// modules leaves out bpf (systemd loads a program for it at each boot, 1.7 s under TCG) and those
// that nothing here sets up. no_timer_check leaves out a test of the timer which a host that is busy
// can make fail, under TCG; then the kernel panics. panic=10 restarts a guest 10 s after a panic of
// which the host gets no report.
const cmdline = "root=" + rootDevice + " ro console=tty0 console=ttyS0,115200 net.ifnames=0 cryptomgr.notests=1" +
	" lsm=lockdown,landlock,yama,apparmor no_timer_check panic=10"

// makeDisk writes the tree root as a disk to file.
func (b *build) makeDisk(ctx context.Context, root, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close()); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	// Debian 12's GRUB cannot read the features left out, or an older e2fsck does not support them.
	return b.run(ctx, nil, "mke2fs", "-q", "-t", "ext4", "-L", "lodge-root", "-m", "1", "-O", "^orphan_file,^metadata_csum_seed",
		"-E", "offset="+strconv.Itoa(partitionStart)+",lazy_itable_init=1,nodiscard", "-d", root,
		file, strconv.Itoa((diskBytes-partitionStart)>>10)+"k")
}

// grubDir is where grub-pc-bin keeps GRUB for BIOS machines.
const grubDir = "/usr/lib/grub/i386-pc"

// grubConfig is all of GRUB's configuration. Debian's kernel packages point /vmlinuz and
// /initrd.img at the newest kernel, so a guest boots an upgraded kernel without GRUB's own scripts.
// The console is the serial one, as for the kernel.
const grubConfig = `serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
linux /vmlinuz ` + cmdline + `
initrd /initrd.img
boot
`

// installGRUB makes file bootable under a BIOS: GRUB's boot sector, its core image in the gap
// before the partition (which boot sectors look for in sector 1 by default), and the partition
// table.
func (b *build) installGRUB(ctx context.Context, dir, file string) error {
	early, core := filepath.Join(dir, "early.cfg"), filepath.Join(dir, "core.img")
	if err := os.WriteFile(early, []byte("configfile (hd0,msdos1)/boot/grub/grub.cfg\n"), 0o600); err != nil {
		return fmt.Errorf("install GRUB: %w", err)
	}
	if err := b.run(ctx, nil, "grub-mkimage", "-O", "i386-pc", "-c", early, "-p", "(hd0,msdos1)/boot/grub", "-o", core,
		"biosdisk", "part_msdos", "ext2", "configfile", "linux", "serial", "terminal", "normal"); err != nil {
		return err
	}
	boot, err := os.ReadFile(filepath.Join(grubDir, "boot.img"))
	if err != nil {
		return fmt.Errorf("install GRUB: %w", err)
	}
	image, err := os.ReadFile(core)
	if err != nil {
		return fmt.Errorf("install GRUB: %w", err)
	}
	return writeBoot(file, boot, image)
}

// writeBoot puts boot code, partition table and core image on the disk.
func writeBoot(file string, boot, core []byte) error {
	if len(boot) != sectorBytes || len(core) > partitionStart-sectorBytes {
		return fmt.Errorf("install GRUB: boot sector of %d bytes and core image of %d do not fit", len(boot), len(core))
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("install GRUB: %w", err)
	}
	_, err = f.WriteAt(append(mbr(boot[:mbrCodeBytes], diskBytes/sectorBytes), core...), 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("install GRUB: %w", err)
	}
	return nil
}

// mbr is a first sector with the one partition. The CHS fields have the values for "use LBA".
func mbr(code []byte, sectors uint32) []byte {
	s := make([]byte, sectorBytes)
	copy(s, code)
	binary.LittleEndian.PutUint32(s[mbrCodeBytes:], diskSignature)
	p := s[446:462]
	copy(p, []byte{bootFlag, 0xfe, 0xff, 0xff, linuxPartition, 0xfe, 0xff, 0xff})
	const start = partitionStart / sectorBytes
	binary.LittleEndian.PutUint32(p[8:], start)
	binary.LittleEndian.PutUint32(p[12:], sectors-start)
	s[510], s[511] = 0x55, 0xaa
	return s
}

// bootable reports whether a first sector has its signature, boot code and a partition of some
// kind.
func bootable(sector []byte) bool {
	return sector[510] == 0x55 && sector[511] == 0xaa && sector[0] != 0 && sector[446+4] != 0
}

// copyFile copies a kernel or an initramfs, which QEMU's user must be able to read.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	defer func() { _ = in.Close() }() // opened for reading only
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o644), out.Close()); err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	return nil
}

// tools maps the programs that Build runs to their Debian packages.
func tools() map[string]string {
	return map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "grub-mkimage": "grub-common"}
}

// find looks a program up in the standard directories, whatever PATH is.
func find(program string) (string, error) {
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}
