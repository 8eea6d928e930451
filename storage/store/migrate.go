package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lodge/gateway"
)

// The layout before this one had a tree of files for each bucket: vms/<vm>/<bucket>/<key>, with what else an
// object has in extended attributes. It can be read for one version. Open moves it into the index and blobs:
// records first, synced, then renames, synced as a whole; so a file with a record only misses its rename.

const (
	migrateBatch = 256
	oldTemporary = ".sgwtmp"
)

// migrate moves all that the old layout has. It can be repeated after any crash.
func (s *Store) migrate() error {
	root := s.path("vms")
	vms, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range vms {
		vm, err := gateway.ParseID(e.Name())
		if err != nil {
			s.log.Warn("directory of the old layout left alone", "path", filepath.Join(root, e.Name()))
			continue
		}
		if err := s.migrateVM(vm, filepath.Join(root, e.Name())); err != nil {
			return fmt.Errorf("migrate objects of %s: %w", vm, err)
		}
	}
	_ = os.Remove(root) // unless something was left alone
	return s.syncMoves()
}

// syncMoves brings all moves and removals of the file system to disk, whatever directories they were in: a power
// failure later would bring a file of the old tree back, and with it an object that was deleted since.
func (s *Store) syncMoves() error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close()); err != nil {
		return fmt.Errorf("sync migrated objects: %w", err)
	}
	return nil
}

func (s *Store) migrateVM(vm gateway.ID, dir string) error {
	buckets, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range buckets {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case !info.IsDir():
			s.log.Warn("file of the old layout left alone", "path", path)
			continue
		case info.Mode()&fs.ModeSticky != 0: // a bucket that no write had made yet
			err = os.RemoveAll(path)
		default:
			err = s.migrateBucket(vm, path, info)
		}
		if err != nil {
			return err
		}
	}
	_ = os.Remove(dir) // unless something was left alone
	return nil
}

// migration moves one bucket.
type migration struct {
	s      *Store
	vm     gateway.ID
	bucket string
	dir    string
	files  []oldFile // whose records are not written yet
}

// oldFile is a file, or a directory that is an object, of the old layout.
type oldFile struct {
	path string
	key  Key
	v    *version // as it will be recorded, without its content
}

func (s *Store) migrateBucket(vm gateway.ID, dir string, info fs.FileInfo) error {
	m := &migration{s: s, vm: vm, bucket: filepath.Base(dir), dir: dir}
	if err := m.makeBucket(info); err != nil {
		return err
	}
	if err := m.abortUploads(); err != nil {
		return err
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return m.add(path, d)
	})
	if err == nil {
		err = m.flush()
	}
	if err != nil {
		return err
	}
	s.log.Info("bucket migrated", slog.String("vm_id", vm.String()), slog.String("bucket", m.bucket))
	return m.removeEmpty()
}

func (m *migration) makeBucket(info fs.FileInfo) error {
	return m.s.alone(m.vm, m.bucket, func(x *tx) error {
		x.unlimited = true // what is there already has room
		_, err := bucketOf(x.b, m.vm, m.bucket)
		if !errors.Is(err, ErrNoBucket) {
			return err
		}
		b, err := x.makeBucket(m.bucket, false)
		if err != nil {
			return err
		}
		b.Created = info.ModTime().UTC()
		attributes, err := readAttributes(m.dir)
		if err != nil {
			return err
		}
		if tags := attributes.tags(); tags != nil {
			b.Config = map[string][]byte{"tagging": taggingDocument(tags)}
		}
		return x.set(textKey(m.vm, kindBucket, m.bucket), nil, b.encode())
	})
}

// abortUploads removes the old engine's temporary files and its uploads in progress.
func (m *migration) abortUploads() error {
	dir := filepath.Join(m.dir, oldTemporary)
	uploads, err := filepath.Glob(filepath.Join(globEscape(dir), "multipart", "*", "*"))
	if err != nil {
		return err
	}
	if len(uploads) > 0 {
		m.s.log.Warn("uploads of the old layout aborted", slog.String("vm_id", m.vm.String()), slog.String("bucket", m.bucket))
	}
	return os.RemoveAll(dir)
}

func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// add takes a file or a directory of the tree.
func (m *migration) add(path string, d fs.DirEntry) error {
	name, err := filepath.Rel(m.dir, path)
	if err != nil {
		return err
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		m.s.log.Warn("file of the old layout left alone", "path", path)
		return nil
	}
	attributes, err := readAttributes(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if attributes["etag"] == nil {
			return nil // it only holds others
		}
		name += "/"
	}
	key := Key{m.vm, m.bucket, name}
	if err := checkName(name); err != nil {
		m.s.log.Warn("file of the old layout left alone", "path", path, "err", err)
		return nil
	}
	v := &version{Object: Object{Key: key, Size: info.Size(), Modified: info.ModTime().UTC()}, null: true}
	if info.IsDir() {
		v.Size = 0
	}
	if err := attributes.fill(v, path); err != nil {
		return err
	}
	m.files = append(m.files, oldFile{path, key, v})
	if len(m.files) == migrateBatch {
		return m.flush()
	}
	return nil
}

// flush records the files, syncs, and moves them.
func (m *migration) flush() error {
	a, err := m.s.account(m.vm)
	if err != nil {
		return err
	}
	x := m.s.begin(a)
	defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
	b, err := bucketOf(x.b, m.vm, m.bucket)
	if err != nil {
		return err
	}
	files := m.files
	m.files = nil
	var known []oldFile
	for _, f := range files {
		recorded, err := x.migrate(b, f)
		if err != nil {
			return err
		}
		if recorded {
			known = append(known, f)
		}
	}
	if err := x.commit(); err != nil {
		return err
	}
	for _, f := range known {
		if err := m.move(b, f); err != nil {
			return err
		}
	}
	return nil
}

// migrate records a file, unless it is recorded. It reports false for one that another object has taken
// the place of.
func (x *tx) migrate(b *Bucket, f oldFile) (bool, error) {
	cur, err := x.current(b, f.key.Name)
	if err != nil {
		return false, err
	}
	if cur != nil {
		same := cur.Size == f.v.Size && cur.Modified.Equal(f.v.Modified)
		if !same {
			x.s.log.Warn("file of the old layout left alone: the object is there", "path", f.path)
		}
		return same, nil
	}
	p := &payload{}
	switch {
	case f.v.Size == 0:
	case f.v.Size <= maxSmall:
		body, err := readOld(f.path, f.v.Size)
		if err != nil {
			return false, err
		}
		if err := x.s.setSmall(p, body); err != nil {
			return false, err
		}
	default:
		id, err := x.s.ids.take()
		if err != nil {
			return false, err
		}
		p.content, p.size, p.file = content{kind: kindFile, id: id}, f.v.Size, file{size: f.v.Size}
		if err := x.b.Set(numKey(x.a.vm, kindUnsealed, id), nil, nil); err != nil {
			return false, err
		}
	}
	if err := x.own(p); err != nil {
		return false, err
	}
	x.files = nil // they are moved from the old tree
	f.v.content = p.content
	if f.v.seq, err = x.s.ids.take(); err != nil {
		return false, err
	}
	return true, x.put(b.Name, nameKey(x.a.vm, kindObject, b.number, f.key.Name), nil, f.v)
}

func readOld(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(f, size+1))
	err = errors.Join(err, f.Close())
	if err == nil && int64(len(body)) != size {
		err = fmt.Errorf("%s has changed while it was read", path)
	}
	return body, err
}

// move takes a recorded file out of the old tree.
func (m *migration) move(b *Bucket, f oldFile) error {
	if strings.HasSuffix(f.key.Name, "/") {
		return nil // a directory: removed when it is empty
	}
	v, err := lookup(m.s.index, b, f.key, NullVersion)
	if err != nil {
		return err
	}
	if v.content.kind != kindFile {
		return os.Remove(f.path)
	}
	to := m.s.blobs.finalPath(m.vm, v.content.id)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Rename(f.path, to)
}

// removeEmpty removes the directories of the bucket, those of directory objects too.
func (m *migration) removeEmpty() error {
	var dirs []string
	err := filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil {
			m.s.log.Warn("directory of the old layout left alone", "path", dir, "err", err)
		}
	}
	return err
}
