package deliver

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// ticking resets a timer at every read, and counts bytes.
type ticking struct {
	io.Reader
	timer *time.Timer
	step  time.Duration
	n     int64
}

func (t *ticking) Read(p []byte) (int, error) {
	t.timer.Reset(t.step)
	n, err := t.Reader.Read(p)
	t.n += int64(n)
	return n, err // io.Copy compares io.EOF
}

var errTalkative = errors.New("the guest sent too many bytes")

// meter fails once more was read than is left.
type meter struct {
	r    io.Reader
	left atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.left.Add(-int64(n)) < 0 {
		return n, errTalkative
	}
	return n, err // readers compare io.EOF
}
