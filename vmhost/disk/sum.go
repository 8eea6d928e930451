package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sumBlock is the unit in which Sum reads.
const sumBlock = 1 << 20

// Sum returns a checksum of a file, in hex: SHA-256 over its size and over each block of 1 MiB that
// is not all zeros, with its offset. A hole and zeros count the same, so a copy has the same sum
// whatever its holes.
func Sum(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("sum file: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("sum file: %w", err)
	}
	hash := sha256.New()
	number := func(n int64) { hash.Write(binary.LittleEndian.AppendUint64(nil, uint64(n))) } //nolint:gosec // sizes and offsets are not negative
	number(info.Size())
	block, zeros := make([]byte, sumBlock), make([]byte, sumBlock)
	for at := int64(0); at < info.Size(); at += sumBlock {
		begin, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole up to the end
			break
		}
		if err != nil {
			return "", fmt.Errorf("sum file: %w", err)
		}
		at = begin / sumBlock * sumBlock
		n, err := f.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("sum file: %w", err)
		}
		if !bytes.Equal(block[:n], zeros[:n]) {
			number(at)
			hash.Write(block[:n])
		}
		if err := ctx.Err(); err != nil {
			return "", err //nolint:wrapcheck // the caller gave up
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
