package mailbox

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

const (
	maxInlineBytes = 1 << 20 // of a body that is in the log; longer ones are files
	maxBodyBytes   = 1 << 32 // of any body, far above what SMTP accepts
	maxStagedBytes = 64 << 20
)

// Staged is a message that is coming in. It is in memory up to 1 MiB, and as long as all of them
// have not taken 64 MiB; else in a file, until Remove.
type Staged struct {
	store *Store
	buf   []byte
	taken int64 // of the store's memory
	f     *os.File
	bytes int64
	sum   uint32
}

// Stage begins a message.
func (s *Store) Stage() (*Staged, error) { return &Staged{store: s}, nil }

// Write appends to the message.
func (st *Staged) Write(p []byte) (int, error) {
	if st.f == nil && !st.fits(len(p)) {
		if err := st.spill(); err != nil {
			return 0, err
		}
	}
	n, err := len(p), error(nil)
	if st.f != nil && st.bytes>>20 != (st.bytes+int64(n))>>20 { // each MiB
		if err := st.store.Room(0); err != nil {
			return 0, err
		}
	}
	if st.f == nil {
		st.buf = append(st.buf, p...)
	} else {
		n, err = st.f.Write(p)
	}
	st.bytes += int64(n)
	st.sum = crc32.Update(st.sum, castagnoli(), p[:n])
	if err != nil {
		return n, withKind(fmt.Errorf("write message: %w", err))
	}
	return n, nil
}

// ReadAt reads what was written.
func (st *Staged) ReadAt(p []byte, off int64) (int, error) {
	if st.f == nil {
		return bytes.NewReader(st.buf).ReadAt(p, off)
	}
	return st.f.ReadAt(p, off) // readers compare io.EOF
}

// fits makes room for n more bytes in memory, if there is some.
func (st *Staged) fits(n int) bool {
	need := len(st.buf) + n
	if need > maxInlineBytes {
		return false
	}
	if need <= cap(st.buf) {
		return true
	}
	size := max(need, min(2*cap(st.buf), maxInlineBytes), 8<<10)
	more := int64(size) - st.taken
	if st.store.staged.Add(more) > maxStagedBytes {
		st.store.staged.Add(-more)
		return false
	}
	st.taken = int64(size)
	st.buf = append(make([]byte, 0, size), st.buf...)
	return true
}

// spill moves the message to a file.
func (st *Staged) spill() error {
	if err := st.store.Room(st.bytes); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(st.store.dir, "stage", NewQueueID(time.Now())), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return withKind(fmt.Errorf("stage message: %w", err))
	}
	st.f = f
	if _, err := f.Write(st.buf); err != nil {
		return withKind(fmt.Errorf("write message: %w", err))
	}
	st.free()
	return nil
}

func (st *Staged) free() {
	st.store.staged.Add(-st.taken)
	st.buf, st.taken = nil, 0
}

// Remove removes what is staged. What Commit has recorded stays. It may be called twice.
func (st *Staged) Remove() {
	st.free()
	if st.f != nil {
		_ = st.f.Close()            // Commit has synced, or the bytes are not needed
		_ = removeFile(st.f.Name()) // the next start removes it otherwise
	}
}
