package sandboxtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// BreakWrites lets each further write fail to the files below dir that this process has open and whose names end
// in suffix.
func BreakWrites(tb testing.TB, dir, suffix string) {
	tb.Helper()
	null, err := os.Open(os.DevNull) // only for reading
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = null.Close() }() // it was only read
	open, err := filepath.Glob("/proc/self/fd/*")
	found := false
	for _, at := range open {
		path, gone := os.Readlink(at)
		if gone != nil || !strings.HasPrefix(path, dir) || !strings.HasSuffix(path, suffix) {
			continue
		}
		var fd int
		if _, err = fmt.Sscan(filepath.Base(at), &fd); err == nil {
			err = unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC)
		}
		found = true
	}
	if err != nil || !found {
		tb.Fatal("no open file to break", err)
	}
}
