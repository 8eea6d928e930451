package engine

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"lodge/gateway/durable"
)

// syncUp syncs path and every directory above it, up to and including stop. It skips what no longer
// exists: the caller that removed it syncs the rest. On a journalling file system the first sync
// commits, and the others have nothing to do.
func syncUp(path, stop string) error {
	for {
		if err := durable.Sync(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		if path == stop || !strings.HasPrefix(path, stop) {
			return nil
		}
		path = filepath.Dir(path)
	}
}
