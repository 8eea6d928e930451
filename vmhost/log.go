package vmhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"lodge/gateway"
)

// followEvery is the polling interval of a followed log.
const followEvery = 200 * time.Millisecond

// Log returns the output of the VM's serial console, earlier starts included. With follow it
// continues until ctx ends or the VM is removed. The caller closes it.
func (h *Host) Log(ctx context.Context, id gateway.ID, follow bool) (io.ReadCloser, error) {
	if _, err := h.begin(ctx, id); err != nil {
		return nil, err
	}
	file := h.cfg.logFile(id)
	f, err := os.Open(file)
	switch {
	case err == nil && !follow:
		return f, nil
	case errors.Is(err, fs.ErrNotExist) && !follow:
		return io.NopCloser(strings.NewReader("")), nil // never started
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open console log: %w", err)
	}
	there := func() bool { _, ok := h.dir.ByID(id); return ok }
	return &follower{path: file, file: f, done: ctx.Done(), there: there}, nil
}

// follower reads a growing file that virtlogd rotates: it renames the file and begins a new one
// under the old name.
type follower struct {
	path  string
	file  *os.File // nil until the file exists
	done  <-chan struct{}
	there func() bool // the VM still exists
}

func (f *follower) Read(b []byte) (int, error) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		n, err := f.read(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		select {
		case <-f.done:
			return 0, io.EOF
		case <-tick.C:
			if !f.there() {
				return 0, io.EOF
			}
		}
	}
}

// read returns what the file has now; at its end 0 and no error.
func (f *follower) read(b []byte) (int, error) {
	if f.file != nil {
		n, err := f.file.Read(b)
		if n > 0 || (err != nil && !errors.Is(err, io.EOF)) {
			return n, err
		}
		if !f.renamed() {
			return 0, nil
		}
		_ = f.file.Close() // it was only read
	}
	next, err := os.Open(f.path)
	f.file = next
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.file = nil
		return 0, nil
	case err != nil:
		f.file = nil
		return 0, fmt.Errorf("open console log: %w", err)
	}
	n, err := next.Read(b)
	if errors.Is(err, io.EOF) {
		return n, nil
	}
	return n, err
}

// renamed reports whether the name now refers to another file. The caller has read all of the old
// one.
func (f *follower) renamed() bool {
	now, err := os.Stat(f.path)
	if err != nil {
		return false
	}
	old, err := f.file.Stat()
	return err == nil && !os.SameFile(now, old)
}

func (f *follower) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
