package mailbox

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// segment is one file of a log, log/<number>-<marker in hex>.seg.
type segment struct {
	number uint32
	marker marker
}

func (s segment) name() string { return fmt.Sprintf("%010d-%x.seg", s.number, s.marker) }

func parseSegment(name string) (segment, bool) {
	number, mark, _ := strings.Cut(strings.TrimSuffix(name, ".seg"), "-")
	n, err := strconv.ParseUint(number, 10, 32)
	m, err2 := hex.DecodeString(mark)
	if err != nil || err2 != nil || len(m) != len(marker{}) {
		return segment{}, false
	}
	s := segment{number: uint32(n), marker: marker(m)}
	return s, s.name() == name
}

// listSegments returns the segments in dir by number, and the names that belong to no log.
func listSegments(dir string) (all []segment, strange []string, err error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list log: %w", err)
	}
	for _, n := range names { // by name, so by number
		s, ok := parseSegment(n.Name())
		switch {
		case n.Name() == indexName || n.Name() == damagedIndex:
		case !ok || !n.Type().IsRegular() || len(all) > 0 && all[len(all)-1].number >= s.number:
			strange = append(strange, n.Name())
		default:
			all = append(all, s)
		}
	}
	return all, strange, nil
}

// window reads a file in pieces.
type window struct {
	r   io.ReaderAt
	buf []byte
	at  int64
}

// bytes returns n bytes at off, fewer only at the end of the file. They are valid until the next
// call.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	if off >= w.at && off+int64(n) <= w.at+int64(len(w.buf)) {
		return w.buf[off-w.at:][:n], nil
	}
	size := max(n, 256<<10)
	w.buf = slices.Grow(w.buf[:0], size)[:size]
	got, err := w.r.ReadAt(w.buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	w.buf, w.at = w.buf[:got], off
	return w.buf[:min(n, got)], nil
}

// visitor is what walk finds, in order: frames, whose inline body is sound or not, and ranges that
// are no frames.
type visitor interface {
	frame(at int64, f frame, sound bool) error
	damage(from, to int64) error
}

// walk reads a segment from from to to. Behind damage it searches for the next frame, so that only
// what was hit is lost.
func walk(r io.ReaderAt, m marker, from, to int64, v visitor) error {
	w := &window{r: r}
	for at := from; at < to; {
		f, sound, err := readFrame(w, m, at, to)
		if err == nil {
			if err := v.frame(at, f, sound); err != nil {
				return err
			}
			at += f.length()
			continue
		}
		if !errors.Is(err, errFrame) {
			return err
		}
		next, err := nextMarker(w, m, at+1, to)
		if err != nil {
			return err
		}
		if err := v.damage(at, next); err != nil {
			return err
		}
		at = next
	}
	return nil
}

func readFrame(w *window, m marker, at, to int64) (f frame, sound bool, err error) {
	head, err := w.bytes(at, headBytes)
	if err != nil {
		return f, false, err
	}
	meta, body, err := decodeHead(head, m)
	whole := headBytes + meta + body
	if err != nil || at+int64(whole) > to {
		return f, false, errFrame
	}
	b, err := w.bytes(at, whole)
	if err != nil {
		return f, false, err
	}
	if len(b) < whole {
		return f, false, errFrame
	}
	if f, err = decodeMeta(b[:headBytes+meta]); err != nil {
		return f, false, err
	}
	return f, body == 0 || checksum(b[headBytes+meta:]) == f.sum, nil
}

// nextMarker returns where the next frame may begin, or to.
func nextMarker(w *window, m marker, at, to int64) (int64, error) {
	for at < to {
		b, err := w.bytes(at, int(min(to-at, 128<<10)))
		if err != nil {
			return 0, err
		}
		if i := bytes.Index(b, m[:]); i >= 0 {
			return at + int64(i), nil
		}
		at += int64(max(len(b)-len(m)+1, 1))
	}
	return to, nil
}
