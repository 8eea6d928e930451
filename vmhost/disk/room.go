package disk

import (
	"fmt"
	"os"
	"syscall"

	"lodge/gateway"
)

// reservePercent of a file system stays free for existing guests, whose disks, mail and objects
// grow.
const reservePercent = 5

// CheckRoom fails with KindNoSpace when a new disk in dir from the image's disk at base would leave
// less than 5 % of the file system free. It counts the image in full, although the two may share
// their blocks.
func CheckRoom(dir, base string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("read free space of %s: %w", dir, err)
	}
	info, err := os.Stat(base)
	if err != nil {
		return fmt.Errorf("read size of image: %w", err)
	}
	used := info.Size()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		used = stat.Blocks * sectorBytes // without its holes
	}
	free, all := int64(fs.Bavail)*fs.Frsize, int64(fs.Blocks)*fs.Frsize //nolint:gosec // no file system is that large
	reserve := all / 100 * reservePercent
	if free-used >= reserve {
		return nil
	}
	return gateway.Errorf(gateway.KindNoSpace, "the host's disk is nearly full: %s of %s are free in %s; the VM takes %s at first, and %s stay in reserve",
		size(free), size(all), dir, size(used), size(reserve)).
		WithHint("Make room there (df -h %s), then try again. Nothing was left behind.", dir)
}

func size(bytes int64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	default:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
}
