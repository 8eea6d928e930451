package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

// unfinished lists the files of bodies that are not committed. Empty ones are in store for the next.
func unfinished(t *testing.T, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(filesBelow(t, dir, "blobs/new/"), func(path string) bool {
		fi, err := os.Stat(path)
		return err != nil || fi.Size() == 0
	})
}

func getOptions() minio.GetObjectOptions { return minio.GetObjectOptions{} }

// filesBelow lists the files of dir whose path has part in it.
func filesBelow(t *testing.T, dir, part string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone while we looked
		}
		if strings.Contains(strings.TrimPrefix(path, dir), part) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestFullDisk fills the disk: what does not fit is refused in a way that SDKs do not try again,
// leaves nothing, and what was there stays.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newHostIn(t, filepath.Join(sandboxtest.SmallDisk(t, 64<<20), "objects"))
	g := h.guest("blog")
	c := g.dummy()
	small, large := random(1<<20), random(80<<20)
	put(t, c, "box", "small", small)
	for range 3 {
		_, err := c.PutObject(t.Context(), "box", "large", bytes.NewReader(large), int64(len(large)), minio.PutObjectOptions{DisableMultipart: true})
		wantCode(t, err, "InsufficientStorage", 507)
		_, err = c.PutObject(t.Context(), "new-box", "large", bytes.NewReader(large), int64(len(large)), minio.PutObjectOptions{DisableMultipart: true})
		wantCode(t, err, "InsufficientStorage", 507)
	}
	_, err := c.PutObject(t.Context(), "box", "parts", bytes.NewReader(large), int64(len(large)), minio.PutObjectOptions{PartSize: 5 << 20})
	wantCode(t, err, "InsufficientStorage", 507)
	// The requests that minio-go gave up end a moment later.
	gatewaytest.Eventually(t, func() error {
		if left := unfinished(t, h.dir); len(left) > 0 {
			return fmt.Errorf("left behind: %v", left)
		}
		return nil
	})
	if head := g.do(t, "HEAD", "/new-box", nil); head.status != 404 {
		t.Fatalf("the bucket was left behind: %d", head.status)
	}
	if got := get(t, c, "box", "small"); !bytes.Equal(got, small) {
		t.Fatal("the object that was there has changed")
	}
	put(t, c, "box", "small2", small)
}
