package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// syncUp syncs path and every directory above it, up to and including stop. What is gone by now is passed over: whoever
// took it away syncs what is left. On a journalling file system the first sync commits and the rest find nothing to do.
func syncUp(path, stop string) error {
	for {
		if err := syncPath(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("sync %s: %w", path, err)
		}
		if path == stop || !strings.HasPrefix(path, stop) {
			return nil
		}
		path = filepath.Dir(path)
	}
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}
