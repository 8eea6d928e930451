package store

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// oldTree makes what the old engine left: a bucket with small, large, nested, empty and directory objects.
func oldTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	bodies := map[string][]byte{
		"small": []byte("hello"), "a/b/large": random(1, 2*chunkBytes+9), "a/empty": {}, "dir/": {}, "dir/x": random(2, maxSmall+1),
	}
	bucket := filepath.Join(dir, "vms", blog.String(), "box")
	for name, body := range bodies {
		path := filepath.Join(bucket, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(path, 0o700))
		} else {
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			must(t, os.WriteFile(path, body, 0o600))
		}
		for attribute, value := range map[string]string{
			"etag": `"tag of ` + name + `"`, "content-type": "text/plain", "X-Amz-Tagging": `{"k":"v"}`, "metadata": `{"Name":"` + name + `"}`,
			"checksums": `{"Algorithm":"CRC32","Type":"FULL_OBJECT","CRC32":"` + base64.StdEncoding.EncodeToString([]byte("1234")) + `"}`,
		} {
			must(t, unix.Setxattr(path, "user."+attribute, []byte(value), 0))
		}
	}
	must(t, os.MkdirAll(filepath.Join(bucket, oldTemporary, "multipart", "hash", "upload"), 0o700))
	must(t, os.WriteFile(filepath.Join(bucket, oldTemporary, "multipart", "hash", "upload", "1"), nil, 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "removing", "old"), 0o700))
	staged := filepath.Join(dir, "vms", blog.String(), "staged")
	must(t, os.Mkdir(staged, 0o700))
	must(t, os.Chmod(staged, fs.ModeSticky|0o700))
	must(t, os.Mkdir(filepath.Join(dir, "vms", blog.String(), "empty"), 0o700))
	return bodies
}

func TestMigrate(t *testing.T) {
	dir := t.TempDir()
	bodies := oldTree(t, dir)
	s := open(t, dir)
	wantMigrated(t, s, bodies)
	o, err := s.Head(Key{blog, "box", "small"}, "")
	want := Object{
		Key: o.Key, Version: NullVersion, Latest: true, Size: 5, ETag: "tag of small", Modified: o.Modified,
		Checksum: Checksum{Algorithm: "CRC32", Value: []byte("1234")},
		Meta:     Meta{Header: map[string]string{"content-type": "text/plain", "x-amz-meta-name": "small"}, Tags: map[string]string{"k": "v"}},
	}
	if diff := cmp.Diff(want, o); err != nil || diff != "" {
		t.Error(err, diff)
	}
	must(t, s.seal(t.Context()))
	v, err := s.find(Key{blog, "box", "a/b/large"}, "")
	must(t, err)
	must(t, flip(s.blobs.finalPath(blog, v.content.id), chunkBytes+1))
	_, err = read(s, v.Key, "")
	wantErr(t, err, ErrDamaged)
}

// wantMigrated fails unless all objects are there, and nothing of the old tree.
func wantMigrated(t *testing.T, s *Store, bodies map[string][]byte) {
	t.Helper()
	for name, body := range bodies {
		wantBody(t, s, Key{blog, "box", name}, "", body)
	}
	page, err := s.List(t.Context(), Query{VM: blog, Bucket: "box"})
	if err != nil || len(page.Objects) != len(bodies) {
		t.Errorf("listed %q, %v", listed(page), err)
	}
	buckets, _, err := s.Buckets(blog, "", "", 10)
	if err != nil || len(buckets) != 2 || buckets[1].Name != "empty" {
		t.Errorf("buckets %+v, %v", buckets, err)
	}
	if _, err := os.Stat(s.path("vms")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old tree is there: %v", err)
	}
	if left, err := os.ReadDir(s.path("removing")); err != nil || len(left) > 0 {
		t.Errorf("left in removing: %v, %v", left, err)
	}
	for _, d := range checked(t, s) {
		t.Errorf("damage: %+v", d)
	}
}

// TestMigrateAgain interrupts the migration between records and renames, and then lets it end.
func TestMigrateAgain(t *testing.T) {
	dir := t.TempDir()
	bodies := oldTree(t, dir)
	tree := filepath.Join(dir, "vms")
	s := open(t, dir)
	moved := map[string]string{} // back to where a crash before the renames would have left them
	for _, name := range []string{"a/b/large", "dir/x"} {
		v, err := s.find(Key{blog, "box", name}, "")
		must(t, err)
		moved[name] = s.blobs.finalPath(blog, v.content.id)
	}
	small, err := s.Head(Key{blog, "box", "small"}, "")
	must(t, err)
	must(t, s.Close())
	bucket := filepath.Join(tree, blog.String(), "box")
	for name, from := range moved {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(bucket, name)), 0o700))
		must(t, os.Rename(from, filepath.Join(bucket, name)))
	}
	left := filepath.Join(bucket, "small")
	must(t, os.WriteFile(left, []byte("hello"), 0o600))
	must(t, os.Chtimes(left, small.Modified, small.Modified))
	wantMigrated(t, open(t, dir), bodies)
}

// TestMigrateLeavesOddFilesAlone has what an operator may have put into the tree: nothing is followed or lost.
func TestMigrateLeavesOddFilesAlone(t *testing.T) {
	dir := t.TempDir()
	oldTree(t, dir)
	bucket := filepath.Join(dir, "vms", blog.String(), "box")
	must(t, os.Symlink("/etc/passwd", filepath.Join(bucket, "link")))
	must(t, syscall.Mkfifo(filepath.Join(bucket, "fifo"), 0o600))
	for range 2 {
		s := open(t, dir)
		_, err := s.Head(Key{blog, "box", "link"}, "")
		wantErr(t, err, ErrNoKey)
		if _, err := os.Lstat(filepath.Join(bucket, "fifo")); err != nil {
			t.Error(err)
		}
		must(t, s.Close())
	}
}
