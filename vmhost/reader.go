package vmhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
)

// Sizes of what a reader writes, and of itself.
const (
	readerStatusBytes = 4096
	readerOutputBytes = 96 << 20 // of one command; the files are sparse
	readerMemoryMiB   = 512
)

// reader runs commands as root with the files of a disk, while its VM is off: in a guest of its own,
// without a network, which boots an image's kernel with a shell as its only process. It writes to an
// overlay that is thrown away. The host itself never mounts a guest's disk.
//
// The guest gets raw files as disks: vdb is the script, vdc gets a line per command that has ended,
// with the number of bytes that it has printed, and then there are two for each command: its input
// and its output. The content of the disk is not trusted: a guest that does not end is ended with the
// context, and what it writes is read within the limits of each command.
type reader struct {
	host *Host
	ctx  context.Context //nolint:containedctx // as that of guestShell
	vm   gateway.VM
	disk gateway.LayerID
	held func() error // fails when the disk must not be read any longer
}

// runAll implements shell.
func (r *reader) runAll(commands ...command) error {
	if len(commands) == 0 {
		return nil
	}
	r.host.readers.RLock()
	defer r.host.readers.RUnlock()
	dir, err := os.MkdirTemp(r.host.cfg.readerDir(), "")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the next start of the daemon empties the directory above
	def, err := r.prepare(dir, commands)
	if err != nil {
		return explainFull(err, dir)
	}
	if err := r.boot(def); err != nil {
		return err
	}
	return r.read(dir, commands)
}

// prepare makes the files of a reader in dir, and returns its definition.
func (r *reader) prepare(dir string, commands []command) (libvirt.Definition, error) {
	h := r.host
	def := libvirt.Definition{
		VM: gateway.Identity{ID: gateway.NewID(), Name: "reader of " + r.vm.Name}, Reader: true, Generation: gateway.NewID(),
		CPUs: 1, MemoryMiB: readerMemoryMiB, Log: filepath.Join(dir, "console.log"),
	}
	def.Console = h.cfg.consoleFile(def.VM.ID)
	if err := errors.Join(os.Chmod(dir, 0o711), disk.CheckRoom(dir, 0)); err != nil { //nolint:gosec // QEMU, which is not root, passes through
		return def, err
	}
	chain, err := h.layers.Chain(r.disk)
	if err != nil {
		return def, err
	}
	over := filepath.Join(dir, "overlay")
	if err := (disk.Overlay{Base: h.layers.Path(chain[0]), Format: chain[0].Format, Bytes: chain[0].Bytes}).Create(r.ctx, over); err != nil {
		return def, err
	}
	def.Disks = []libvirt.Disk{{File: over, Format: gateway.QCOW2}}
	for _, l := range chain {
		def.Disks = append(def.Disks, libvirt.Disk{File: h.layers.Path(l), Format: l.Format})
	}
	if err := r.setKernel(&def); err != nil {
		return def, err
	}
	def.Files, err = readerFiles(dir, commands)
	return def, err
}

// setKernel has the reader boot the kernel of the VM's image, or of any other: all find their root.
func (r *reader) setKernel(def *libvirt.Definition) error {
	h := r.host
	img, err := image.Open(h.cfg.imageDir(), r.vm.Image)
	if err != nil {
		img, err = image.Open(h.cfg.imageDir(), h.cfg.Defaults.Image)
	}
	if err != nil {
		return err
	}
	def.Kernel, def.Initrd, def.Cmdline = img.Kernel, img.Initrd, img.Cmdline+" init=/bin/sh -- /dev/vdb"
	def.KVM, err = h.accel.UseKVM(r.ctx, func() (string, error) { return img.Kernel, nil })
	return err
}

// readerFiles makes the raw files of a reader.
func readerFiles(dir string, commands []command) ([]string, error) {
	files := []string{filepath.Join(dir, "script"), filepath.Join(dir, "status")}
	err := errors.Join(writePadded(files[0], readerScript(commands)), writeSparse(files[1], readerStatusBytes))
	for i, c := range commands {
		in, out := readerIO(dir, i)
		files = append(files, in, out)
		err = errors.Join(err, writePadded(in, c.stdin), writeSparse(out, readerOutputBytes))
	}
	return files, err
}

// readerIO are the files with the input and the output of a command.
func readerIO(dir string, i int) (in, out string) {
	return filepath.Join(dir, fmt.Sprint("in", i)), filepath.Join(dir, fmt.Sprint("out", i))
}

const sector = 512 // a disk has whole ones

func writePadded(path string, content []byte) error {
	padded := (len(content)/sector + 1) * sector
	return os.WriteFile(path, append(bytes.Clone(content), bytes.Repeat([]byte{'\n'}, padded-len(content))...), 0o600)
}

func writeSparse(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

// readerScript is what process 1 of a reader runs. The root is read-only; its kernel is without the
// help of udev, so the names of disks are those of their order.
func readerScript(commands []command) []byte {
	var s bytes.Buffer
	s.WriteString("export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C\n" +
		"mount -t tmpfs tmpfs /tmp\nmount -t tmpfs tmpfs /run\nexec 3>/dev/vdc\n")
	for i, c := range commands {
		in, out := "/dev/vd"+string(rune('d'+2*i)), "/dev/vd"+string(rune('e'+2*i))
		fmt.Fprintf(&s, "n=$(head -c %d %s | { %s; } | head -c %d | tee %s | wc -c)\necho \"$n\" >&3\n", len(c.stdin), in, c.line, readerOutputBytes, out)
	}
	s.WriteString("sync\necho o >/proc/sysrq-trigger\nsleep 600\n")
	return s.Bytes()
}

// boot runs a reader until it ends.
func (r *reader) boot(def libvirt.Definition) error {
	h := r.host
	defer os.Remove(def.Console) //nolint:errcheck // QEMU does that itself when it ends cleanly
	if err := h.virt.StartReader(r.ctx, def); err != nil {
		return err
	}
	ended := false
	defer func() {
		if !ended {
			_ = h.virt.Destroy(context.WithoutCancel(r.ctx), def.VM.ID) // endStrayReaders tries again
		}
	}()
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		state, err := h.virt.State(r.ctx, def.VM.ID)
		if ended = err == nil && state != libvirt.Running; ended {
			return nil
		}
		if err := r.held(); err != nil {
			return err
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-tick.C:
		}
	}
}

// read gives the output of each command to its reader.
func (r *reader) read(dir string, commands []command) error {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return fmt.Errorf("read what the guest has written: %w", err)
	}
	lines := strings.Split(string(bytes.TrimRight(status, "\x00")), "\n")
	for i, c := range commands {
		if i >= len(lines)-1 {
			return fmt.Errorf("the guest ended at command %d of %d: %s", i+1, len(commands), lastLines(filepath.Join(dir, "console.log")))
		}
		n, err := strconv.ParseInt(strings.TrimSpace(lines[i]), 10, 64)
		if err != nil || n < 0 || n > readerOutputBytes {
			return fmt.Errorf("the guest wrote %.40q instead of a size", lines[i])
		}
		_, path := readerIO(dir, i)
		if err := readSome(path, n, c.read); err != nil {
			return err
		}
	}
	return nil
}

func readSome(path string, n int64, read func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read what the guest has written: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	return read(io.LimitReader(f, n))
}

// lastLines is the end of a console log, for an error.
func lastLines(path string) string {
	const enough = 400
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strconv.Quote(string(text[max(0, len(text)-enough):]))
}

// lend lets QEMU read the uppermost layer of a disk, as it can those below.
func (h *Host) lend(disk gateway.LayerID) error {
	chain, err := h.layers.Chain(disk)
	if err != nil {
		return err
	}
	return libvirt.Lend(h.layers.Path(chain[0]))
}

// explain implements shell.
func (r *reader) explain(err error) error {
	if err == nil {
		return nil
	}
	if r.ctx.Err() != nil {
		return fmt.Errorf("examine %s: %w", r.vm.Name, errors.Join(r.ctx.Err(), err))
	}
	if known, ok := errors.AsType[*gateway.Error](err); ok {
		return known
	}
	return gateway.Errorf(gateway.KindUnavailable, "the disk of %s could not be read", r.vm.Name).
		WithHint("sh, dpkg, find and tar are needed on it. Start it, and try again: lodge start %s", r.vm.Name).Because(err)
}

// close implements shell.
func (r *reader) close() {}

// endStrayReaders ends the readers that an earlier daemon has left, and removes their files.
func (h *Host) endStrayReaders(ctx context.Context) {
	if !h.readers.TryLock() {
		return
	}
	defer h.readers.Unlock()
	err := h.virt.EndReaders(ctx)
	if err == nil {
		err = emptyDir(h.cfg.readerDir())
	}
	if err != nil && ctx.Err() == nil {
		h.log.WarnContext(ctx, "guests that read disks were not ended", "err", err)
	}
}

// emptyDir removes all that is in a directory.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}
