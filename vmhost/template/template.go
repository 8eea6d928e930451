// Package template keeps templates: booted guests without an identity, from which new VMs are
// resumed.
//
// A template is a directory with three files: disk (raw, the base of the disks of its VMs), memory
// (libvirt's save file) and template.json (the manifest). The two belong together and never change:
// the memory has parts of the disk's file system in it. One rename of the complete directory makes a
// template exist, and removal begins with the manifest: a template without one does not exist. A
// directory without a manifest whose disk is the base of a VM's disk stays until that VM is removed.
//
// Store.Find checks a template before each use: by size and by the kernel's own stamps (inode, time
// of the last change), or by checksum where those differ. It then records the new stamps.
//
// This package never talks to libvirt, and never decides when a template is made or used.
package template

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
)

// Key is all that saved memory depends on. A VM is resumed from a template with an equal Key only.
type Key struct {
	Image     string `json:"image"`      // name of the base image
	Sum       string `json:"sum"`        // of the image's disk
	QEMU      uint64 `json:"qemu"`       // version, such as 7002000 for 7.2.0
	Libvirt   uint64 `json:"libvirt"`    // version, such as 9000000 for 9.0.0
	Machine   string `json:"machine"`    // what the devices of a guest depend on in this version of Lodge
	Accel     string `json:"accel"`      // "kvm" or "tcg"
	CPU       string `json:"cpu"`        // the CPU that guests see
	CPUs      int    `json:"cpus"`       // virtual processors
	MemoryMiB int    `json:"memory_mib"` // in MiB
}

// Template is one that is published.
type Template struct {
	ID     string // unique among all that were ever made
	Key    Key
	Built  time.Time
	Disk   string // path of the raw disk
	Memory string // path of libvirt's save file
	Bytes  int64  // that both occupy
}

// Names of the files of a template.
const (
	diskFile     = "disk"
	memoryFile   = "memory"
	manifestFile = "template.json"
)

// draftPrefix marks a directory in which a template is being made.
const draftPrefix = ".draft-"

// manifest is template.json.
type manifest struct {
	Key    Key       `json:"key"`
	Built  time.Time `json:"built"`
	Disk   part      `json:"disk"`
	Memory part      `json:"memory"`
}

// part is one of the two files, as it was published.
type part struct {
	Bytes int64  `json:"bytes"`
	Sum   string `json:"sum"`
	Stamp stamp  `json:"stamp"`
}

// stamp changes whenever a file is written or replaced (stat(2)): no program can set the time of
// the last change.
type stamp struct {
	Inode   uint64 `json:"inode"`
	Changed int64  `json:"changed"` // nanoseconds since 1970
}

// Store has the templates of a host. Its methods may be called concurrently; one caller at a time
// publishes or removes.
type Store struct {
	dir string
	mu  sync.Mutex // held while a manifest is replaced or removed
}

// NewStore returns the store in dir, which it makes if it is absent, and removes unfinished drafts.
func NewStore(dir string) (*Store, error) {
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(dir, 0o711)); err != nil { //nolint:gosec // QEMU, which is not root, passes through
		return nil, fmt.Errorf("make directory of templates: %w", err)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), draftPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("remove drafts of templates: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Dir is the directory of all templates.
func (s *Store) Dir() string { return s.dir }

// Disk is the path of a template's disk, which exists as long as it is in use.
func (s *Store) Disk(id string) string { return filepath.Join(s.dir, id, diskFile) }

// Find returns the newest template for a key, and marks it as used now. Errors: KindNotFound when
// there is none, KindInvalid when it is damaged.
func (s *Store) Find(ctx context.Context, key Key) (Template, error) {
	all, err := s.List()
	if err != nil {
		return Template{}, err
	}
	slices.SortFunc(all, func(a, b Template) int { return b.Built.Compare(a.Built) })
	i := slices.IndexFunc(all, func(t Template) bool { return t.Key == key })
	if i < 0 {
		return Template{}, gateway.Errorf(gateway.KindNotFound, "there is no template of %s with %d CPUs and %d MiB", key.Image, key.CPUs, key.MemoryMiB)
	}
	if err := s.check(ctx, all[i].ID); err != nil {
		return all[i], err
	}
	now := time.Now()
	return all[i], os.Chtimes(filepath.Join(s.dir, all[i].ID, manifestFile), now, now)
}

// List returns all templates that have a manifest, the one used last first. It checks no content.
func (s *Store) List() ([]Template, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	used := map[string]time.Time{}
	var all []Template
	for _, e := range entries {
		dir := filepath.Join(s.dir, e.Name())
		m, err := readManifest(dir)
		info, errStat := os.Stat(filepath.Join(dir, manifestFile))
		if err != nil || errStat != nil || strings.HasPrefix(e.Name(), ".") {
			continue // a draft, removed meanwhile, or damaged: Sweep removes it
		}
		t := Template{
			ID: e.Name(), Key: m.Key, Built: m.Built,
			Disk: filepath.Join(dir, diskFile), Memory: filepath.Join(dir, memoryFile),
		}
		t.Bytes = occupied(t.Disk) + occupied(t.Memory)
		used[t.ID] = info.ModTime()
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Template) int { return used[b.ID].Compare(used[a.ID]) })
	return all, nil
}

// errManifest is for a manifest that was read, and whose content is damaged.
var errManifest = errors.New("its manifest is damaged")

func readManifest(dir string) (m manifest, err error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %w", errManifest, err)
	}
	return m, nil
}

func (m manifest) write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, manifestFile), append(text, '\n'), 0o600)
}

// check fails with KindInvalid for a template whose files are not those that were published.
func (s *Store) check(ctx context.Context, id string) error {
	dir := filepath.Join(s.dir, id)
	m, err := readManifest(dir)
	if err != nil {
		return damaged(id, err.Error())
	}
	stamps := false
	for name, p := range map[string]*part{diskFile: &m.Disk, memoryFile: &m.Memory} {
		now, err := statPart(filepath.Join(dir, name)) // before the checksum, so that a later change shows
		switch {
		case err != nil:
			return damaged(id, err.Error())
		case now.Bytes != p.Bytes:
			return damaged(id, fmt.Sprintf("its %s has %d bytes instead of %d", name, now.Bytes, p.Bytes))
		case now.Stamp == p.Stamp:
			continue
		}
		sum, err := disk.Sum(ctx, filepath.Join(dir, name))
		if err != nil {
			return err //nolint:wrapcheck // it names the file
		}
		if sum != p.Sum {
			return damaged(id, "the checksum of its "+name+" is wrong")
		}
		p.Stamp, stamps = now.Stamp, true
	}
	if stamps {
		s.restamp(id, m)
	}
	return nil
}

// restamp records new stamps in the manifest of a template, unless it was removed meanwhile.
func (s *Store) restamp(id string, m manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := filepath.Join(s.dir, id)
	if _, err := os.Stat(filepath.Join(dir, manifestFile)); err == nil {
		_ = m.write(dir) // the next check computes the checksums again
	}
}

func damaged(id, why string) error {
	return gateway.Invalid("the template %s is damaged: %s", id, why).WithHint("Remove it: lodge image rm %s", id)
}

// statPart returns a file's size and stamp.
func statPart(path string) (part, error) {
	info, err := os.Stat(path)
	if err != nil {
		return part{}, err
	}
	p := part{Bytes: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		p.Stamp = stamp{Inode: stat.Ino, Changed: stat.Ctim.Nano()}
	}
	return p, nil
}

// occupied is the space that a file takes; 0 when there is none.
func occupied(path string) int64 {
	var stat syscall.Stat_t
	if syscall.Stat(path, &stat) != nil {
		return 0
	}
	return stat.Blocks * 512 // stat(2): always in units of 512
}

// Draft is a template that is being made. Its caller fills Disk and Memory, then calls Publish.
type Draft struct {
	Key    Key
	Dir    string // for other files of the build as well; they are not published
	Disk   string
	Memory string
	store  *Store
}

// Draft makes the directory of a new template.
func (s *Store) Draft(key Key) (*Draft, error) {
	dir, err := os.MkdirTemp(s.dir, draftPrefix)
	if err == nil {
		err = os.Chmod(dir, 0o711) //nolint:gosec // QEMU, which is not root, passes through
	}
	if err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	return &Draft{Key: key, Dir: dir, Disk: filepath.Join(dir, diskFile), Memory: filepath.Join(dir, memoryFile), store: s}, nil
}

// Discard removes the draft. After Publish it does nothing.
func (d *Draft) Discard() error { return os.RemoveAll(d.Dir) }

// Publish makes the template exist, synced.
func (d *Draft) Publish(ctx context.Context) (Template, error) {
	id := fmt.Sprintf("%s-%dcpu-%dmib-%s", d.Key.Image, d.Key.CPUs, d.Key.MemoryMiB, strings.ToLower(rand.Text()[:8]))
	dir := filepath.Join(d.store.dir, id)
	if err := d.publish(ctx, dir); err != nil {
		return Template{}, fmt.Errorf("publish template: %w", err)
	}
	return d.store.Find(ctx, d.Key)
}

func (d *Draft) publish(ctx context.Context, dir string) error {
	for _, step := range d.steps(ctx, dir) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// steps are those of a publication in dir, in their order. The last makes the template exist.
func (d *Draft) steps(ctx context.Context, dir string) []func() error {
	m := manifest{Key: d.Key, Built: time.Now().UTC().Truncate(time.Second)}
	settle := func(file string, mode fs.FileMode, p *part) func() error {
		return func() error {
			if err := errors.Join(os.Chown(file, 0, 0), os.Chmod(file, mode), durable.Sync(file)); err != nil {
				return err
			}
			sum, err := disk.Sum(ctx, file)
			if err != nil {
				return err //nolint:wrapcheck // the caller names the operation
			}
			*p, err = statPart(file)
			p.Sum = sum
			return err
		}
	}
	return []func() error{
		settle(d.Disk, 0o444, &m.Disk),
		settle(d.Memory, 0o400, &m.Memory),
		d.removeOthers,
		func() error { return m.write(d.Dir) },
		func() error { return durable.Rename(d.Dir, dir) },
	}
}

// removeOthers removes the other files of the build.
func (d *Draft) removeOthers() error {
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != diskFile && e.Name() != memoryFile {
			errs = append(errs, os.RemoveAll(filepath.Join(d.Dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
