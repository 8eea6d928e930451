package mailbox

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Staged is a message that is coming in. Its bytes are on disk, until Remove.
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

// Write appends to the message.
func (st *Staged) Write(p []byte) (int, error) {
	n, err := st.f.Write(p)
	st.bytes += int64(n)
	if err != nil {
		return n, withKind(fmt.Errorf("write message: %w", err))
	}
	return n, nil
}

// Remove removes the staged file. What Commit has recorded stays. It may be called twice.
func (st *Staged) Remove() {
	_ = st.f.Close() // Commit has synced, or the bytes are not needed
	_ = removeFile(st.f.Name())
}
