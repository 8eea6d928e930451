// Package image makes base images from Debian's packages alone and opens them.
//
// An image is four files in one directory: <name>-<sum>.raw (the disk: MBR, GRUB, one ext4
// partition), <name>-<sum>.vmlinuz and <name>-<sum>.initrd (the same kernel again, to boot it
// directly) and <name>.json (the manifest, written last: an image without it does not exist). The
// sum is that of the disk's content, so a new build makes new files, and the disks of VMs can be
// overlays of the old ones; Sweep removes those that nothing needs. A manifest may name other files,
// as those of older builds do.
//
// Build runs mmdebstrap as root, without loop devices and without mounts outside mmdebstrap's own.
// A build that is killed leaves one directory, which the next build removes.
//
// This package never talks to libvirt and never changes an image once its manifest is written.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lodge/gateway"
)

// Image is a base image that Open has checked.
type Image struct {
	Name    string
	Disk    string // path of the raw disk
	Kernel  string // path of the kernel for direct boot
	Initrd  string // path of the initramfs for direct boot
	Cmdline string // kernel command line for direct boot
	Built   time.Time

	Sum         string // checksum of the disk, by disk.Sum; empty if it is unknown
	Immutable   bool   // the disk is named by its content, and QEMU, which is not root, can read it
	Templatable bool   // its guests can wait for an identity (lodge-identity.service)
}

// manifest is <name>.json. Paths are relative to its directory.
type manifest struct {
	Name    string    `json:"name"`
	Built   time.Time `json:"built"`
	Cmdline string    `json:"cmdline"`
	Disk    part      `json:"disk"`
	Kernel  part      `json:"kernel"`
	Initrd  part      `json:"initrd"`

	Sum         string `json:"sum,omitempty"`
	Templatable bool   `json:"templatable,omitempty"`
}

// part is one file of an image. The size detects a truncated copy without reading it.
type part struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

// Extensions of an image's files.
const (
	manifestExt = ".json"
	diskExt     = ".raw"
	kernelExt   = ".vmlinuz"
	initrdExt   = ".initrd"
)

// sumDigits is how much of the sum is in the names of files.
const sumDigits = 16

// ContentName is the name of an image's files without their extensions.
func ContentName(name, sum string) string { return name + "-" + sum[:min(sumDigits, len(sum))] }

// dirMode are the permissions that a directory of images needs: QEMU, which is not root, opens the
// kernels in it.
const dirMode = 0o711

// MakeDir makes a directory for images, whatever the umask is. An existing one keeps its mode if
// QEMU can pass through it, so images may lie on a read-only file system.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("make image directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("make image directory: %w", err)
	}
	if mode := info.Mode().Perm(); mode|dirMode != mode {
		if err := os.Chmod(dir, mode|dirMode); err != nil {
			return fmt.Errorf("make image directory: %w", err)
		}
	}
	return nil
}

// Open finds the image called name in dir and checks it cheaply: the manifest, each file's size,
// the disk's boot signature. Errors: KindNotFound when there is none, KindInvalid when it is
// incomplete.
func Open(dir, name string) (Image, error) {
	if err := checkName(name); err != nil {
		return Image{}, err
	}
	m, err := readManifest(filepath.Join(dir, name+manifestExt))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Image{}, missing(name)
	case errors.Is(err, errManifest):
		return Image{}, broken(name, "its manifest cannot be read").Because(err)
	case err != nil:
		return Image{}, fmt.Errorf("open image: %w", err)
	}
	for _, p := range []part{m.Disk, m.Kernel, m.Initrd} {
		if err := p.check(dir, name); err != nil {
			return Image{}, err
		}
	}
	img := Image{
		Name: name, Disk: filepath.Join(dir, m.Disk.File), Kernel: filepath.Join(dir, m.Kernel.File),
		Initrd: filepath.Join(dir, m.Initrd.File), Cmdline: m.Cmdline, Built: m.Built,
		Sum: m.Sum, Templatable: m.Templatable && m.Sum != "",
	}
	if info, err := os.Stat(img.Disk); err == nil && m.Sum != "" && m.Disk.File == ContentName(name, m.Sum)+diskExt {
		img.Immutable = info.Mode().Perm()&0o004 != 0
	}
	return img, checkBootable(img.Disk, name)
}

// errManifest is for a manifest whose content is damaged.
var errManifest = errors.New("its content is damaged")

func readManifest(file string) (m manifest, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errManifest, err)
	}
	return m, nil
}

// List opens every image in dir, in the order of their names. Incomplete ones are returned as
// errors, joined, beside the others.
func List(dir string) ([]Image, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*"+manifestExt))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var images []Image
	var bad []error
	for _, file := range found {
		img, err := Open(dir, strings.TrimSuffix(filepath.Base(file), manifestExt))
		if err != nil {
			bad = append(bad, err)
			continue
		}
		images = append(images, img)
	}
	return images, errors.Join(bad...)
}

// check rejects a part that is absent, has another length than it was built with, or lies outside
// dir.
func (p part) check(dir, name string) error {
	if p.File == "" || p.File != filepath.Base(p.File) {
		return broken(name, "its manifest names no file")
	}
	info, err := os.Stat(filepath.Join(dir, p.File))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return broken(name, p.File+" is missing")
	case err != nil:
		return fmt.Errorf("open image: %w", err)
	case !info.Mode().IsRegular() || info.Size() != p.Bytes:
		return broken(name, fmt.Sprintf("%s has %d bytes instead of %d", p.File, info.Size(), p.Bytes))
	}
	return nil
}

// checkBootable looks for the signature at the end of the first sector and a partition in it.
func checkBootable(disk, name string) error {
	f, err := os.Open(disk)
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading only
	sector := make([]byte, sectorBytes)
	if _, err := io.ReadFull(f, sector); err != nil {
		return broken(name, "its disk cannot be read").Because(err)
	}
	if !bootable(sector) {
		return broken(name, "its disk is not a bootable disk")
	}
	return nil
}

// checkName keeps names within the directory and apart from hidden files.
func checkName(name string) error {
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") || len(name) > 100 {
		return gateway.Invalid("%q is not the name of an image", name).WithHint("Use one such as %q.", Default)
	}
	return nil
}

func missing(name string) *gateway.Error {
	return gateway.Errorf(gateway.KindNotFound, "there is no image named %q", name).WithHint("%s", buildHint(name))
}

func broken(name, why string) *gateway.Error {
	return gateway.Invalid("the image %q is incomplete: %s", name, why).WithHint("%s", buildHint(name))
}

// buildHint is the command that builds the image, or the list of those that can be built.
func buildHint(name string) string {
	if _, ok := release(name); ok {
		return "Build it: lodge image build " + name
	}
	return "Images that can be built: " + strings.Join(Names(), ", ") + " (lodge image build " + Default + ")."
}
