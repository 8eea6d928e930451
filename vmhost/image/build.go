package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
)

// needBytes is the most that a build takes: the tree, the disk and the downloaded packages.
const needBytes = 3 << 30

// build is one run of Build.
type build struct {
	recipe   Recipe
	codename string
	dir      string   // scratch, below recipe.Dir; removed at the end
	lock     *os.File // held while this process or any that it started lives
	begun    time.Time
}

// Build makes the image of a recipe, in one to two minutes, and replaces an older one; VMs made
// from that keep their disks. It needs root. When ctx ends, so does the build, with ctx's error.
// Errors: KindInvalid (no such recipe), KindDenied (not root), KindUnavailable (a program is
// missing, the mirror does not answer), KindConflict (a build of the image is running),
// KindNoSpace. After an error an older image is unchanged, and nothing else is left.
func Build(ctx context.Context, recipe Recipe) (err error) {
	codename, ok := release(recipe.Name)
	if !ok {
		return gateway.Invalid("no image named %q can be built", recipe.Name).WithHint("%s", buildHint(recipe.Name))
	}
	b := &build{recipe: recipe, codename: codename, dir: filepath.Join(recipe.Dir, ".build-"+recipe.Name), begun: time.Now()}
	if err := b.check(); err != nil {
		return err
	}
	if err := b.begin(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	if err := b.make(ctx); err != nil {
		return explainFull(err, recipe.Dir)
	}
	b.report("done", recipe.Name+" is built", 0, 0)
	return nil
}

// check makes sure that the programs, the directory and the free space that a build needs are
// there.
func (b *build) check() error {
	if os.Geteuid() != 0 {
		return gateway.Errorf(gateway.KindDenied, "only root can build images").WithHint("Run it with sudo.")
	}
	for program, debian := range tools() {
		if _, err := find(program); err != nil {
			return missingPackage(program, debian)
		}
	}
	if _, err := os.Stat(filepath.Join(grubDir, "boot.img")); err != nil {
		return missingPackage(filepath.Join(grubDir, "boot.img"), "grub-pc-bin")
	}
	if err := MakeDir(b.recipe.Dir); err != nil {
		return err
	}
	var fsys syscall.Statfs_t
	if err := syscall.Statfs(b.recipe.Dir, &fsys); err != nil {
		return fmt.Errorf("look for free space: %w", err)
	}
	if free := int64(fsys.Bavail) * fsys.Bsize; free < needBytes { //nolint:gosec // disks of 8 EiB are far
		return noSpace(b.recipe.Dir, fmt.Sprintf("%d MiB are free, an image takes %d while it is built", free>>20, needBytes>>20))
	}
	return nil
}

// begin takes the lock and removes what an interrupted build has left.
func (b *build) begin() error {
	lock, err := lockImage(b.recipe.Dir, b.recipe.Name)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return gateway.Errorf(gateway.KindConflict, "the image %q is being built already", b.recipe.Name).
			WithHint("Wait for that build, or cancel it.").Because(err)
	}
	if err != nil {
		return err
	}
	b.lock = lock
	if err := errors.Join(os.RemoveAll(b.dir), os.Mkdir(b.dir, 0o755)); err != nil { // dpkg's helpers, which are not root, pass through it
		_ = lock.Close() // the error above is the cause
		return fmt.Errorf("prepare build: %w", err)
	}
	return nil
}

// end removes the scratch directory and releases the lock.
func (b *build) end() error {
	if err := errors.Join(os.RemoveAll(b.dir), b.lock.Close()); err != nil {
		return fmt.Errorf("clean up build: %w", err)
	}
	return nil
}

// make builds in the scratch directory and moves the result out of it last.
func (b *build) make(ctx context.Context) error {
	root, raw := filepath.Join(b.dir, "root"), filepath.Join(b.dir, "disk")
	if err := b.makeRoot(ctx, root); err != nil {
		return err
	}
	b.report("filesystem", "writing the disk", 0, 0)
	if err := b.makeDisk(ctx, root, raw); err != nil {
		return err
	}
	b.report("bootloader", "installing GRUB", 0, 0)
	if err := b.installGRUB(ctx, b.dir, raw); err != nil {
		return err
	}
	kernel, initrd := filepath.Join(b.dir, "kernel"), filepath.Join(b.dir, "initrd")
	if err := errors.Join(copyBoot(kernel, root, "vmlinuz-*"), copyBoot(initrd, root, "initrd.img-*")); err != nil {
		return err
	}
	sum, err := disk.Sum(ctx, raw)
	if err != nil {
		return err
	}
	return b.publish(sum, raw, kernel, initrd)
}

// copyBoot copies the one file in root's /boot that matches pattern. (The links in / are relative
// to the guest's root.)
func copyBoot(to, root, pattern string) error {
	found, err := filepath.Glob(filepath.Join(root, "boot", pattern))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("find kernel: %d files /boot/%s: %w", len(found), pattern, err)
	}
	return copyFile(to, found[0])
}

// publish moves the parts to their places, each synced, and writes the new manifest over the old
// one: at any moment the image is the old one or the new one. The files of the old one stay as long
// as disks may be over them (Sweep). After an error so do the parts that were moved.
func (b *build) publish(sum, raw, kernel, initrd string) error {
	name, dir := b.recipe.Name, b.recipe.Dir
	m := manifest{Name: name, Built: time.Now().UTC().Truncate(time.Second), Cmdline: cmdline, Sum: sum, Templatable: true}
	manifestFile := filepath.Join(dir, name+manifestExt)
	old, err := readManifest(manifestFile) // for its names
	if err != nil {
		old = manifest{}
	}
	stem := filepath.Join(dir, ContentName(name, sum))
	for _, p := range []struct {
		from, ext string
		mode      fs.FileMode
		part      *part
	}{{raw, diskExt, 0o444, &m.Disk}, {kernel, kernelExt, 0o644, &m.Kernel}, {initrd, initrdExt, 0o644, &m.Initrd}} {
		if *p.part, err = place(p.from, stem+p.ext, p.mode); err != nil {
			return fmt.Errorf("publish image: %w", err)
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = durable.WriteFile(manifestFile, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("publish image: %w", err)
	}
	return removeNamed(dir, name, old)
}

// place moves a finished file to path, synced and with this mode: QEMU, which is not root, reads it.
func place(from, path string, mode fs.FileMode) (part, error) {
	info, err := os.Stat(from)
	if err == nil {
		err = errors.Join(os.Chmod(from, mode), durable.Sync(from))
	}
	if err == nil {
		err = durable.Rename(from, path)
	}
	if err != nil {
		return part{}, err
	}
	return part{File: filepath.Base(path), Bytes: info.Size()}, nil
}

func (b *build) report(phase, text string, done, total int64) {
	if b.recipe.Progress != nil {
		b.recipe.Progress(gateway.Progress{Phase: phase, Text: text, Done: done, Total: total, Elapsed: time.Since(b.begun)})
	}
}

func missingPackage(what, debian string) error {
	return gateway.Errorf(gateway.KindUnavailable, "%s is needed to build images and is not installed", what).
		WithHint("apt-get install %s", debian)
}

// explainFull turns the error of a full disk into KindNoSpace.
func explainFull(err error, dir string) error {
	if !durable.IsFull(err) {
		return err
	}
	return noSpace(dir, "no room for the image in "+dir).Because(err)
}

func noSpace(dir, why string) *gateway.Error {
	return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full: %s", why).
		WithHint("Free some space there (df -h %s) and run the build again. Nothing was left behind.", dir)
}
