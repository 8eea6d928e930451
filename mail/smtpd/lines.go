package smtpd

import (
	"bytes"
	"io"
)

const (
	// bufferBytes is what a reader holds at most, of whatever a client sends.
	bufferBytes = 16 << 10
	// maxCommandBytes of a command line; RFC 5321 §4.5.3.1.4 requires 512, and its extensions some more.
	maxCommandBytes = 4 << 10
)

// reader reads what a client sends, up to line ends or a number of bytes. It never holds more than
// bufferBytes. After an error it holds nothing and returns that error for ever: what the client has
// sent before the connection broke is not executed later.
type reader struct {
	src      io.Reader
	wait     func() error // is called before each read that may wait: it sends the replies
	buf      []byte       // of bufferBytes
	from, to int          // what is held is buf[from:to]
	err      error
}

func newReader(src io.Reader, wait func() error) *reader {
	return &reader{src: src, wait: wait, buf: make([]byte, bufferBytes)}
}

// buffered is how many bytes the client has sent ahead, as far as they were read.
func (r *reader) buffered() int { return r.to - r.from }

// piece returns the next bytes up to a line end, and with it; at most limit, which is at most
// bufferBytes. Without a line end it returns limit bytes. They are valid until the next call.
func (r *reader) piece(limit int) ([]byte, error) {
	for scanned := 0; ; {
		held := r.buf[r.from:r.to]
		held = held[:min(len(held), limit)]
		if i := bytes.IndexByte(held[scanned:], '\n'); i >= 0 {
			held = held[:scanned+i+1]
		} else if scanned = len(held); scanned < limit {
			if err := r.fill(); err != nil {
				return nil, err
			}
			continue
		}
		r.from += len(held)
		return held, nil
	}
}

// skip drops the next n bytes.
func (r *reader) skip(n int64) error {
	for {
		some := min(n, int64(r.buffered()))
		r.from += int(some)
		if n -= some; n == 0 {
			return nil
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// fill reads once. The buffer must not be full.
func (r *reader) fill() error {
	if r.err != nil {
		return r.err
	}
	r.to = copy(r.buf, r.buf[r.from:r.to])
	r.from = 0
	n, err := 0, r.wait()
	if err == nil {
		n, err = r.src.Read(r.buf[r.to:])
		r.to += n
	}
	if err != nil {
		r.err, r.from, r.to = err, 0, 0
	}
	return err // callers compare io.EOF and timeouts
}
