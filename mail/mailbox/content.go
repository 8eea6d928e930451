package mailbox

import (
	"fmt"
	"io"
	"os"
)

// Content is a message: its trace headers, then its body, read from disk on demand.
type Content struct {
	*io.SectionReader
	head string
	body *os.File
}

// Open opens a message of Snapshot, Find or Pending. It fails with KindNotFound if it was expunged.
func (b *Box) Open(uid uint32) (*Content, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.search(uid)
	if i == len(b.entries) || b.entries[i].UID != uid {
		return nil, errNoMessage()
	}
	r, err := b.read(b.entries[i])
	if err != nil {
		return nil, err
	}
	f, err := os.Open(b.body(r.QueueID))
	if err != nil {
		return nil, fmt.Errorf("open message: %w", err)
	}
	c := &Content{head: r.Head, body: f}
	c.SectionReader = io.NewSectionReader(headed{r.Head, f}, 0, r.Bytes)
	return c, nil
}

// Close closes the body.
func (c *Content) Close() error { return c.body.Close() }

// read reads an entry's record from the index. The caller holds b.mu.
func (b *Box) read(e Entry) (record, error) {
	line := make([]byte, e.length)
	if _, err := b.index.ReadAt(line, e.offset); err != nil {
		return record{}, fmt.Errorf("read index: %w", err)
	}
	r, err := decode(line)
	if err != nil {
		return record{}, fmt.Errorf("read index: %w", err)
	}
	return r, nil
}

// headed is a file behind a string.
type headed struct {
	head string
	f    *os.File
}

func (h headed) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(h.head)) {
		n = copy(p, h.head[off:])
		if n == len(p) {
			return n, nil
		}
	}
	m, err := h.f.ReadAt(p[n:], off+int64(n)-int64(len(h.head)))
	return n + m, err // readers compare io.EOF
}
