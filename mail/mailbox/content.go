package mailbox

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// Content is a message: its trace headers, then its body.
type Content struct {
	*io.SectionReader
	body io.Closer // nil: it is in memory
}

// Close closes the body.
func (c *Content) Close() error {
	if c.body == nil {
		return nil
	}
	return c.body.Close()
}

// Damaged reports whether an error of Open means that the message itself is missing or damaged on
// disk, so that no later attempt succeeds.
func Damaged(err error) bool { return errors.Is(err, errDamaged) }

var errDamaged = errors.New("the message is damaged on disk")

// Open opens a message of Snapshot, Find or Pending, and compares its checksum, that of a file once.
// It fails with KindNotFound if it was expunged, and with an error for Damaged.
func (b *Box) Open(uid uint32) (*Content, error) {
	var c *Content
	err := b.read(uid, func(s *Snapshot, e Entry) (err error) {
		c, err = b.open(s, e)
		return err
	})
	return c, damage(err)
}

// read calls f with a message of the current Snapshot, again if it was moved meanwhile. An error
// over one that was expunged meanwhile becomes KindNotFound.
func (b *Box) read(uid uint32, f func(*Snapshot, Entry) error) error {
	for {
		s := b.shown.Load()
		e, ok := s.Entries.Find(uid)
		if !ok {
			return errNoMessage()
		}
		err := f(s, e)
		if err == nil {
			return nil
		}
		if now, ok := b.shown.Load().Entries.Find(uid); ok && now.at == e.at {
			return err
		}
	}
}

func (b *Box) open(s *Snapshot, e Entry) (*Content, error) {
	buf, f, err := b.readAt(s, e, e.at.length)
	if err != nil {
		return nil, err
	}
	env, err := decodeEnvelope(f.meta)
	if err != nil {
		return nil, err
	}
	if !e.at.file {
		if checksum(buf[e.at.head:]) != f.sum {
			return nil, errFrame
		}
		message := buf[int(e.at.head)-len(env.head):]
		return &Content{SectionReader: io.NewSectionReader(bytes.NewReader(message), 0, int64(len(message)))}, nil
	}
	body, err := os.Open(b.big(e.QueueID))
	if err != nil {
		return nil, fmt.Errorf("open message: %w", err)
	}
	_, checked := b.checked.Load(e.QueueID) // a client may open it for each KiB
	if err := checkFile(body, f, checked); err != nil {
		_ = body.Close() // only read
		return nil, err
	}
	b.checked.Store(e.QueueID, nil)
	return &Content{io.NewSectionReader(headed{env.head, body}, 0, e.Bytes), body}, nil
}

// checkFile compares a body with its frame; only its size, if its checksum was right before.
func checkFile(body *os.File, f frame, checked bool) error {
	info, err := body.Stat()
	if err != nil {
		return fmt.Errorf("open message: %w", err)
	}
	if info.Size() != f.bytes {
		return fmt.Errorf("%s has %d bytes, not %d: %w", body.Name(), info.Size(), f.bytes, errFrame)
	}
	if checked {
		return nil
	}
	sum := crc32.New(castagnoli())
	if _, err := io.Copy(sum, io.NewSectionReader(body, 0, f.bytes)); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	if sum.Sum32() != f.sum {
		return fmt.Errorf("%s: %w", body.Name(), errFrame)
	}
	return nil
}

// envelope reads a message's envelope. It fails with KindNotFound if it was expunged.
func (b *Box) envelope(uid uint32) (env envelope, err error) {
	err = b.read(uid, func(s *Snapshot, e Entry) error {
		_, f, err := b.readAt(s, e, int64(e.at.head))
		if err == nil {
			env, err = decodeEnvelope(f.meta)
		}
		return err
	})
	return env, err
}

// readAt reads the first n bytes of an entry's frame, meta at least.
func (b *Box) readAt(s *Snapshot, e Entry, n int64) ([]byte, frame, error) {
	g := s.segment(e.at.segment)
	file, err := os.Open(b.path(g))
	if err != nil {
		return nil, frame{}, fmt.Errorf("open segment: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	buf := make([]byte, n)
	if _, err := file.ReadAt(buf, e.at.offset); err != nil {
		return nil, frame{}, fmt.Errorf("read segment: %w", err)
	}
	meta, _, err := decodeHead(buf, g.marker)
	if err != nil || headBytes+meta != int(e.at.head) {
		return nil, frame{}, fmt.Errorf("%s at %d: %w", file.Name(), e.at.offset, errFrame)
	}
	f, err := decodeMeta(buf[:e.at.head])
	if err != nil || f.uid != e.UID {
		return nil, frame{}, fmt.Errorf("%s at %d: %w", file.Name(), e.at.offset, errFrame)
	}
	return buf, f, nil
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
