package mailbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"lodge/gateway/durable"
)

const smallestHole = 4096 // of a file system's block

// doomed returns the messages that a batch expunges.
func (b *Box) doomed(batch []*ticket) (dead []Entry) {
	for _, t := range batch {
		for _, f := range t.frames {
			if f.kind != kindExpunge {
				continue
			}
			for _, uid := range decodeUIDs(f.meta) {
				if e, ok := b.state.list.Find(uid); ok {
					dead = append(dead, e)
				}
			}
		}
	}
	return dead
}

// bury frees the disk that expunged messages have. What fails, or a crash cuts short, is freed with
// the segment; a file in big is moved to lost at the next start.
func (b *Box) bury(dead []Entry) {
	var f *os.File
	var number uint32
	for _, e := range dead {
		if e.at.file {
			_ = removeFile(b.big(e.QueueID))
			b.checked.Delete(e.QueueID)
			continue
		}
		body := e.at.length - int64(e.at.head)
		if body < smallestHole {
			continue
		}
		if f == nil || number != e.at.segment {
			if f != nil {
				_ = f.Close() // holes need no sync
			}
			number = e.at.segment
			var err error
			if f, err = os.OpenFile(b.path(b.state.segment(number)), os.O_WRONLY, 0); err != nil {
				b.logger.Warn("expunged message not freed", "err", err)
				return
			}
		}
		const punchHole = 2 | 1 // FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE
		_ = syscall.Fallocate(int(f.Fd()), punchHole, e.at.offset+int64(e.at.head), body)
	}
	if f != nil {
		_ = f.Close() // as above
	}
}

// tidy removes the oldest segments when none of their messages lives. If the log is more than twice
// as long as what lives in it, it moves messages of the oldest one to the tail, a batch at a time.
// Only the oldest goes, so no change is removed whose message is still there.
func (b *Box) tidy() {
	s := b.state
	if b.stuck || b.unkept || len(s.segments) < 2 {
		return
	}
	if s.used[s.segments[0].number] > 0 && int64(len(s.segments)-2)*b.segmentBytes > 2*s.live {
		b.try("move messages", b.move(s.segments[0].number))
	}
	dead := 0
	for dead < len(s.segments)-1 && s.used[s.segments[dead].number] == 0 {
		dead++
	}
	if dead == 0 || b.stuck {
		return
	}
	all := s.segments
	s.segments = all[dead:]
	if err := b.writeIndex(); err != nil {
		s.segments = all
		b.try("write index", err)
		return
	}
	b.show()
	for _, g := range all[:dead] {
		b.try("remove segment", removeFile(b.path(g))) // the next start removes it otherwise
	}
}

func (b *Box) try(what string, err error) {
	if err != nil {
		b.stuck = true
		b.logger.Warn("mailbox not tidied for now", "op", what, "err", err)
	}
}

// move adds messages of a segment once more at the tail, with the same UIDs. A body that is damaged
// stays so. One whose frame cannot be read is set aside; if that fails, it stays, and so does the segment, while the
// others leave it.
func (b *Box) move(number uint32) error {
	t := &ticket{done: make(chan error, 1)}
	size := int64(0)
	var lost []uint32
	var failed error
	for _, e := range b.state.list.All() {
		if e.at.segment != number {
			continue
		}
		if size += e.at.length; size > maxBatchBytes && len(t.frames) > 0 {
			break
		}
		buf, f, err := b.readAt(&b.state.Snapshot, e, e.at.length)
		if Damaged(damage(err)) {
			if err := b.setAside(e, err); err != nil {
				failed = err
			} else {
				lost = append(lost, e.UID)
			}
			continue
		}
		if err != nil {
			return err
		}
		f.flags, f.body = e.Flags, buf[e.at.head:]
		t.frames = append(t.frames, &f)
	}
	if len(lost) > 0 {
		t.frames = append(t.frames, &frame{kind: kindExpunge, meta: encodeUIDs(lost)})
	}
	if len(t.frames) == 0 {
		return failed
	}
	if err := b.makeRoom(t.size(), []*ticket{t}); err != nil {
		return err
	}
	return errors.Join(failed, b.write([]*ticket{t}))
}

// setAside keeps in lost what there is of a message whose frame cannot be read, before it is expunged. why is the error of
// reading it.
func (b *Box) setAside(e Entry, why error) error {
	g := b.state.segment(e.at.segment)
	path := b.lost(fmt.Sprintf("%s@%d", g.name(), e.at.offset))
	b.logger.Error("message damaged; moved to lost", "queue_id", e.QueueID, "path", path, "err", why)
	f, err := os.Open(b.path(g))
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	buf := make([]byte, e.at.length)
	n, err := f.ReadAt(buf, e.at.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read segment: %w", err)
	}
	if err := durable.WriteFile(path, buf[:n], 0o600); err != nil {
		return err
	}
	if !e.at.file {
		return nil
	}
	if err := b.lose(b.big(e.QueueID)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
