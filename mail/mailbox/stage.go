package mailbox

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Staged is a message that is coming in. It is on disk from the first byte, and gone after Discard.
type Staged struct {
	f     *os.File
	bytes int64
}

// Stage begins a message.
func (s *Store) Stage() (*Staged, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "stage", NewQueueID(time.Now())), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, withKind(fmt.Errorf("stage message: %w", err))
	}
	return &Staged{f: f}, nil
}

// Write adds to the message.
func (st *Staged) Write(p []byte) (int, error) {
	n, err := st.f.Write(p)
	st.bytes += int64(n)
	if err != nil {
		return n, withKind(fmt.Errorf("write message: %w", err))
	}
	return n, nil
}

// Discard drops the staged file. What Commit has recorded stays. It may be called twice.
func (st *Staged) Discard() {
	_ = st.f.Close() // nothing depends on it: Commit has synced, or nobody wants the bytes
	_ = removeFile(st.f.Name())
}
