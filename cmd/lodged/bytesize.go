package main

import (
	"math"
	"strconv"

	"github.com/dustin/go-humanize"

	"lodge/gateway"
)

// byteSize is a size in bytes, which is written as 50GiB; 0 is written as none.
type byteSize int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *byteSize) UnmarshalText(text []byte) error {
	if string(text) == "none" {
		*b = 0
		return nil
	}
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n == 0 || n > math.MaxInt64 {
		return gateway.Invalid("not a size: %.100q", text).WithHint("Sizes are 500MiB, 50GiB and the like, or none.")
	}
	*b = byteSize(n)
	return nil
}

// String returns the size as UnmarshalText reads it.
func (b byteSize) String() string {
	if b <= 0 {
		return "none"
	}
	if short := humanize.IBytes(uint64(b)); exactly(short, b) {
		return short
	}
	return strconv.FormatInt(int64(b), 10) + " B"
}

// exactly reports whether a text is read as a size.
func exactly(text string, b byteSize) bool {
	n, err := humanize.ParseBytes(text)
	return err == nil && n == uint64(b) //nolint:gosec // it is not negative
}
