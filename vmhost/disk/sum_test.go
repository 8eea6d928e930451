package disk_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/vmhost/disk"
)

// summed makes a file of that size, with bytes at offsets, and returns its checksum.
func summed(t *testing.T, size int64, bytes map[int64]byte, change func(*os.File)) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	gatewaytest.Must(t, err)
	for at, b := range bytes {
		_, err := f.WriteAt([]byte{b}, at)
		gatewaytest.Must(t, err)
	}
	gatewaytest.Must(t, f.Truncate(size))
	if change != nil {
		change(f)
	}
	gatewaytest.Must(t, f.Close())
	sum, err := disk.Sum(t.Context(), f.Name())
	gatewaytest.Must(t, err)
	return sum
}

const mib = 1 << 20

// Holes count as zeros: a copy has the same sum wherever its holes are.
func TestSumIgnoresHoles(t *testing.T) {
	data := map[int64]byte{0: 1, 3*mib + 17: 2, 9*mib - 1: 3}
	sparse := summed(t, 10*mib+5, data, nil)
	for name, zeros := range map[string][2]int64{ // offset and length
		"all but the data": {4 * mib, 5*mib - 1}, "before the data": {2*mib + 5, mib}, "the end": {9 * mib, mib + 5}, "one byte": {6*mib + 1, 1},
	} {
		full := summed(t, 10*mib+5, data, func(f *os.File) {
			_, err := f.WriteAt(make([]byte, zeros[1]), zeros[0])
			gatewaytest.Must(t, err)
		})
		if full != sparse {
			t.Errorf("zeros in place of %s: another sum", name)
		}
	}
}

// Each other size, and each other byte at any offset, has another sum.
func TestSumDiffers(t *testing.T) {
	const size = 3*mib + 100
	sums := map[string]string{}
	add := func(name, sum string) {
		if same, ok := sums[sum]; ok {
			t.Errorf("%s has the sum of %s", name, same)
		}
		sums[sum] = name
	}
	add("empty", summed(t, 0, nil, nil))
	add("a hole", summed(t, size, nil, nil))
	add("a hole that is shorter", summed(t, size-1, nil, nil))
	add("a hole that is longer", summed(t, size+1, nil, nil))
	add("a hole to the end of the block", summed(t, 4*mib, nil, nil))
	for at, name := range map[int64]string{
		0: "first", 1: "second", mib - 1: "last of a block", mib: "first of a block", mib + mib/2: "middle", 3*mib - 1: "last of the last block",
		3 * mib: "first of the rest", size - 1: "last",
	} {
		add(name+" byte 1", summed(t, size, map[int64]byte{at: 1}, nil))
		add(name+" byte 2", summed(t, size, map[int64]byte{at: 2}, nil))
	}
}

func TestSumFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if _, err := disk.Sum(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	gatewaytest.Must(t, os.WriteFile(path, []byte("data"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := disk.Sum(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
