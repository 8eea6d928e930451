package durable

import (
	"fmt"
	"syscall"
)

const (
	reservePercent  = 5       // of a file system stay free
	maxReserveBytes = 1 << 30 // and no more than that
)

// Free returns how many bytes are free on the file system of dir, and how many of them are the reserve: 5 % of it, at most
// 1 GiB. What VMs store leaves the reserve alone, so that the host's own records, and what removes things, still fit.
func Free(dir string) (free, reserve int64, err error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	all := int64(fs.Blocks) * fs.Frsize                                                    //nolint:gosec // no file system is that large
	return int64(fs.Bavail) * fs.Frsize, min(all/100*reservePercent, maxReserveBytes), nil //nolint:gosec // as above
}

// Room fails with ENOSPC, see IsFull, if so many more bytes in dir would take from the reserve.
func Room(dir string, bytes int64) error {
	free, reserve, err := Free(dir)
	if err == nil && free-bytes < reserve {
		err = fmt.Errorf("reserve of the disk: %w", syscall.ENOSPC)
	}
	return err
}
