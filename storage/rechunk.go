package storage

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"lodge/storage/sigv4"
)

const rechunkBytes = 64 << 10

// rechunker encodes a decoded body again, as unsigned chunks with its one trailing checksum. All
// chunks but the last are full, so that the length is known beforehand (rechunkedLength): the
// engine would take surplus bytes for the next request.
type rechunker struct {
	src     *sigv4.Reader
	trailer string // the announced header's name
	sum     int    // the length of its value
	buf     []byte
	out     []byte // not yet read
	err     error
}

// Read implements io.Reader.
func (c *rechunker) Read(p []byte) (int, error) {
	if len(c.out) == 0 && c.err == nil {
		c.fill()
	}
	if len(c.out) == 0 {
		return 0, c.err
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

func (c *rechunker) fill() {
	n, err := 0, error(nil)
	for n < len(c.buf) && err == nil {
		var m int
		m, err = c.src.Read(c.buf[n:])
		n += m
	}
	c.out = c.out[:0]
	if n > 0 {
		c.out = append(append(fmt.Appendf(c.out, "%x\r\n", n), c.buf[:n]...), "\r\n"...)
	}
	if errors.Is(err, io.EOF) {
		c.finish()
		err = c.err
	}
	if c.err = err; err != nil && !errors.Is(err, io.EOF) {
		c.out = nil // the upload fails
	}
}

// finish adds the end and the trailer.
func (c *rechunker) finish() {
	for _, t := range c.src.Trailers() {
		if t.Name == c.trailer && len(t.Value) == c.sum {
			c.out, c.err = fmt.Appendf(c.out, "0\r\n%s:%s\r\n\r\n", t.Name, t.Value), io.EOF
			return
		}
	}
	c.err = fmt.Errorf("%w: the trailer %q that it announces is missing or no checksum", sigv4.ErrChunked, c.trailer)
}

// rechunkedLength returns the length of size bytes after a rechunker.
func rechunkedLength(size int64, trailer string, sum int) int64 {
	chunk := func(n int64) int64 { return int64(len(fmt.Sprintf("%x", n))) + n + 4 }
	length := size / rechunkBytes * chunk(rechunkBytes)
	if rest := size % rechunkBytes; rest > 0 {
		length += chunk(rest)
	}
	return length + int64(len("0\r\n")+len(trailer)+len(":")+sum+len("\r\n\r\n"))
}

// sumLength returns the length of a checksum in base64; false if the trailer is no checksum.
func sumLength(trailer string) (int, bool) {
	bytes, known := map[string]int{
		"x-amz-checksum-crc32": 4, "x-amz-checksum-crc32c": 4, "x-amz-checksum-crc64nvme": 8, "x-amz-checksum-sha1": 20,
		"x-amz-checksum-sha256": 32, "x-amz-checksum-sha512": 64, "x-amz-checksum-md5": 16, "x-amz-checksum-xxhash64": 8,
		"x-amz-checksum-xxhash3": 8, "x-amz-checksum-xxhash128": 16,
	}[trailer]
	return base64.StdEncoding.EncodedLen(bytes), known
}
