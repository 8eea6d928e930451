package mailbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"lodge/gateway/durable"
)

const (
	segmentBytes  = 64 << 20 // of a segment before the next one begins
	maxBatchBytes = 8 << 20  // of a batch, unless one change alone is longer
	reserveBytes  = 64 << 10 // kept free in the tail, so that flags, cursor and expunges fit on a full disk
	growBytes     = 1 << 20  // allocated behind the tail at once
)

// ticket is one caller that waits until its frames are synced.
type ticket struct {
	frames []*frame
	hold   heed
	done   chan error
}

// heed is how a ticket heeds a hold.
type heed int

const (
	waitABit heed = iota // it is refused after hold.DefaultWait
	waitOn               // as long as the hold lasts: what it records has happened, and would be repeated without it
	ignore
)

func newTicket(h heed, frames ...*frame) *ticket {
	return &ticket{frames: frames, hold: h, done: make(chan error, 1)}
}

func (t *ticket) adds() bool { return t.frames[0].kind == kindAdd || t.frames[0].kind == kindAddFile }

func (t *ticket) size() (n int64) {
	for _, f := range t.frames {
		n += f.length()
	}
	return n
}

// do appends frames to the log, all or none, and returns once they are synced. It assigns UIDs to
// new messages. While a checkpoint is made it waits, and fails with an error for Held if that takes too long.
func (b *Box) do(frames ...*frame) error {
	return b.submit(newTicket(waitABit, frames...))
}

func (b *Box) submit(t *ticket) error {
	if err := t.check(); err != nil {
		return err
	}
	var refused error
	enqueue := func() (begun bool) {
		begun, refused = b.enqueue(t)
		return begun
	}
	switch {
	case t.hold == ignore:
		enqueue()
	case t.hold == waitOn:
		b.gate.Await(enqueue)
	case !b.gate.Pass(enqueue):
		return errHeld()
	}
	if refused != nil {
		return refused
	}
	return withKind(<-t.done)
}

func (t *ticket) check() error {
	for _, f := range t.frames {
		if len(f.meta) > maxMetaBytes {
			return fmt.Errorf("%d bytes are too many for a record of the log", len(f.meta))
		}
	}
	return nil
}

// enqueue gives a ticket to lead, unless changes are held back or, with an error, not possible any more.
func (b *Box) enqueue(t *ticket) (begun bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return true, b.broken
	}
	if b.gate.Held() && t.hold != ignore {
		return false, nil
	}
	b.queueUp(t)
	return true, nil
}

// queueUp gives a ticket to lead. The caller has locked mu.
func (b *Box) queueUp(t *ticket) {
	if t.adds() {
		for _, f := range t.frames {
			f.uid = b.nextUID
			b.nextUID++
		}
	}
	b.queue = append(b.queue, t)
	if !b.leading {
		b.leading = true
		go b.lead()
	}
}

// lead is the group commit: it writes and syncs batches until the queue is empty. While one batch
// syncs, the next one queues.
func (b *Box) lead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 {
		size, n := b.queue[0].size(), 1
		for n < len(b.queue) && size+b.queue[n].size() <= maxBatchBytes {
			size += b.queue[n].size()
			n++
		}
		batch := b.queue[:n:n]
		b.queue = b.queue[n:]
		b.mu.Unlock()
		b.commit(batch, size)
		b.tidy()
		b.index()
		b.mu.Lock()
	}
	b.leading = false
	b.idle.Broadcast()
}

// commit makes a batch durable, then visible, then answers its callers. If there is no room for its
// messages, only they fail.
func (b *Box) commit(batch []*ticket, size int64) {
	if err := b.makeRoom(size, batch); err != nil {
		rest := batch[:0:0]
		for _, t := range batch {
			if t.adds() || b.tail == nil {
				t.done <- err
			} else {
				rest = append(rest, t)
			}
		}
		batch = rest
	}
	if len(batch) == 0 {
		return
	}
	err := b.write(batch)
	for _, t := range batch {
		t.done <- err
	}
}

func (b *Box) write(batch []*ticket) error {
	s := b.last()
	size := int64(0)
	for _, t := range batch {
		size += t.size()
	}
	buf := make([]byte, 0, size) // bodies are copied once
	var places []place
	for _, t := range batch {
		for _, f := range t.frames {
			places = append(places, placeOf(f, s.number, b.end+int64(len(buf))))
			buf = f.encode(buf, s.marker)
		}
	}
	if err := b.syncNames(); err != nil {
		return err
	}
	if err := b.append(buf); err != nil {
		return err
	}
	dead := b.doomed(batch)
	b.publish(batch, places)
	b.bury(dead)
	return nil
}

// append writes buf at the end of the tail and syncs it: this sync is what makes messages accepted
// and changes done. After an error the tail ends where it did before. If even that is not sure, or
// a sync has failed, which may have dropped pages, the tail is written no more: what is left behind
// its last frame was acknowledged to nobody.
func (b *Box) append(buf []byte) error {
	_, err := b.tail.WriteAt(buf, b.end)
	if err == nil {
		if err = b.datasync(int(b.tail.Fd())); err == nil {
			b.end += int64(len(buf))
			b.grown += int64(len(buf))
			b.dirty = true
			return nil
		}
		defer b.seal()
	}
	b.reserved = 0
	if undo := b.tail.Truncate(b.end); undo != nil {
		b.logger.Error("mailbox write not undone", "path", b.tail.Name(), "err", undo)
		defer b.seal()
	}
	return fmt.Errorf("append to log: %w", err)
}

// syncNames syncs the names of the tail before the first batch goes into it: a process that was killed while it began
// the segment, or made the mailbox, may not have done so.
func (b *Box) syncNames() error {
	if b.named {
		return nil
	}
	if err := errors.Join(durable.Sync(b.log), b.syncDirs()); err != nil {
		return err
	}
	b.named = true
	return nil
}

// publish makes a durable batch visible.
func (b *Box) publish(batch []*ticket, places []place) {
	for _, t := range batch {
		for _, f := range t.frames {
			if err := b.state.apply(f, places[0]); err != nil {
				b.logger.Error("frame not understood", "err", err) // never written so
			}
			places = places[1:]
		}
	}
	b.show()
}

// show publishes the state.
func (b *Box) show() {
	now := b.state.Snapshot
	now.Entries = b.state.list.shared()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shown.Store(&now)
	b.nextUID = max(b.nextUID, now.NextUID)
	close(b.changed)
	b.changed = make(chan struct{})
}

// makeRoom sees to a tail that takes size more bytes.
func (b *Box) makeRoom(size int64, batch []*ticket) error {
	adds := false
	for _, t := range batch {
		adds = adds || t.adds()
	}
	if b.tail != nil && b.end < b.segmentBytes {
		return b.reserve(size, adds)
	}
	if err := b.roll(); err != nil {
		return err
	}
	if err := b.reserve(size, true); adds { // other changes fit without it
		return err
	}
	return nil
}

// reserve allocates disk behind the tail. Only messages need new room: other changes may use what
// is reserved.
func (b *Box) reserve(size int64, adds bool) error {
	if !adds || b.end+size+reserveBytes <= b.reserved {
		return nil
	}
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	more := size + reserveBytes + growBytes
	err := syscall.Fallocate(int(b.tail.Fd()), keepSize, b.end, more)
	if errors.Is(err, syscall.ENOSPC) {
		more -= growBytes
		err = syscall.Fallocate(int(b.tail.Fd()), keepSize, b.end, more)
	}
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("reserve log: %w", err)
	}
	b.reserved = b.end + more
	return nil
}

// roll begins a segment. Its first frame has what no message has, so that any one segment is
// enough to go on. The file and all names above it are synced before a frame in it can be acknowledged; a
// crash before leaves an empty segment. The index is written then, so that a start reads few frames.
func (b *Box) roll() error {
	s := segment{number: 1}
	if len(b.state.segments) > 0 {
		s.number = b.last().number + 1
	}
	if s.number <= b.spoilt {
		s.number = b.spoilt + 1
	}
	_, _ = rand.Read(s.marker[:]) // never fails
	f, err := os.OpenFile(b.path(s), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	b.mu.Lock()
	head := &frame{kind: kindHead, value: b.state.Validity, uid: b.nextUID}
	b.mu.Unlock()
	buf := (&frame{kind: kindRewind, uid: b.state.cursor}).encode(head.encode(nil, s.marker), s.marker)
	if len(b.state.Keywords) > 0 {
		buf = keywordFrame(b.state.Keywords).encode(buf, s.marker)
	}
	_, err = f.Write(buf)
	if err = errors.Join(err, f.Sync(), durable.Sync(filepath.Dir(f.Name())), b.syncDirs()); err != nil {
		_ = f.Close()                    // it is removed below
		if removeFile(f.Name()) != nil { // it holds no message, but its number is taken
			b.spoilt = s.number
		}
		return fmt.Errorf("begin segment: %w", err)
	}
	b.seal()
	b.tail, b.end, b.reserved, b.named = f, int64(len(buf)), 0, true
	b.state.segments = append(b.state.segments, s)
	if err := b.writeIndex(); err != nil {
		b.logger.Warn("mailbox index not written", "err", err)
	} else {
		b.stuck = false // there is room again
	}
	return nil
}

func (b *Box) last() segment { return b.state.segments[len(b.state.segments)-1] }
