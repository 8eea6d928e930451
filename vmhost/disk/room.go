package disk

import (
	"fmt"
	"syscall"

	"lodge/gateway"
)

// reservePercent of a file system stays free for existing guests, whose disks, mail and objects
// grow.
const reservePercent = 5

// CheckRoom fails with KindNoSpace when need more bytes in dir would leave less than 5 % of the file
// system free.
func CheckRoom(dir string, need int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("read free space of %s: %w", dir, err)
	}
	free, all := int64(fs.Bavail)*fs.Frsize, int64(fs.Blocks)*fs.Frsize //nolint:gosec // no file system is that large
	reserve := all / 100 * reservePercent
	if free-need >= reserve {
		return nil
	}
	return gateway.Errorf(gateway.KindNoSpace, "the host's disk is nearly full: %s of %s are free in %s; %s more are needed, and %s stay in reserve",
		size(free), size(all), dir, size(need), size(reserve)).
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

// Occupied is the space that a file takes, without its holes; 0 when there is none.
func Occupied(path string) int64 {
	var stat syscall.Stat_t
	if syscall.Stat(path, &stat) != nil {
		return 0
	}
	return stat.Blocks * sectorBytes // stat(2): always in units of 512
}
