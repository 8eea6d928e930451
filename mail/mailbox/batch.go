package mailbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// reserveBytes is kept free in the index, so that flags, the cursor and expunges can be recorded on
// a full disk.
const reserveBytes = 64 << 10

// ticket is one caller that waits until its records are synced.
type ticket struct {
	recs []record
	done chan error
}

// do appends recs to the index, all or none, and returns once they are synced. It assigns UIDs to
// add records.
func (b *Box) do(recs []record) error {
	t := &ticket{recs: recs, done: make(chan error, 1)}
	b.mu.Lock()
	if b.broken != nil {
		b.mu.Unlock()
		return b.broken
	}
	for i := range recs {
		if recs[i].Op == opAdd {
			recs[i].UID = b.nextUID
			b.nextUID++
		}
	}
	b.queue = append(b.queue, t)
	if !b.leading {
		b.leading = true
		go b.lead()
	}
	b.mu.Unlock()
	return withKind(<-t.done)
}

// lead is the group commit: it writes and syncs batches until the queue is empty. While one batch
// syncs, the next one queues. It owns the end of the index file while it runs.
func (b *Box) lead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 {
		batch := b.queue
		b.queue = nil
		b.commit(batch)
		if b.broken == nil && b.lines > 1000+4*len(b.entries) {
			b.compactOrLog()
		}
	}
	b.leading = false
	b.idle.Broadcast()
}

// commit makes one batch durable, then visible. The caller holds b.mu, which is released during
// disk I/O.
func (b *Box) commit(batch []*ticket) {
	buf, places, err := layOut(batch, b.size)
	if err == nil {
		err = b.broken
	}
	if err == nil {
		index, size := b.index, b.size
		b.mu.Unlock()
		err = b.append(index, size, buf, batch)
		b.mu.Lock()
	}
	if err == nil {
		b.size += int64(len(buf))
		b.publish(batch, places)
	}
	for _, t := range batch {
		t.done <- err
	}
}

// place is the position of a record in the index.
type place struct {
	offset int64
	length int
}

func layOut(batch []*ticket, offset int64) (buf []byte, places []place, err error) {
	for _, t := range batch {
		for _, r := range t.recs {
			before := len(buf)
			if buf, err = r.encode(buf); err != nil {
				return nil, nil, err
			}
			places = append(places, place{offset + int64(before), len(buf) - before})
		}
	}
	return buf, places, nil
}

// append syncs the bodies' directory, then writes buf at the end of the index and syncs that. After
// an error the index ends where it did before, or the box accepts no changes until it is opened
// again.
func (b *Box) append(index *os.File, size int64, buf []byte, batch []*ticket) error {
	if hasAdd(batch) {
		if err := b.bodies.Sync(); err != nil {
			return fmt.Errorf("sync directory: %w", err)
		}
	}
	_, err := index.WriteAt(buf, size)
	if err == nil {
		err = syscall.Fdatasync(int(index.Fd()))
	}
	if err == nil {
		return nil
	}
	if undo := errors.Join(index.Truncate(size), index.Sync()); undo != nil {
		b.mu.Lock()
		b.broken = fmt.Errorf("undo index write: %w", undo)
		b.mu.Unlock()
		b.logger.Error("mailbox stopped until restart", "err", undo)
	}
	return fmt.Errorf("append to index: %w", err)
}

func hasAdd(batch []*ticket) bool {
	for _, t := range batch {
		if t.recs[0].Op == opAdd {
			return true
		}
	}
	return false
}

// publish makes a durable batch visible and unlinks the bodies of expunged messages.
func (b *Box) publish(batch []*ticket, places []place) {
	for _, t := range batch {
		for _, r := range t.recs {
			var dead []string
			if r.Op == opExpunge {
				b.each(r.UIDs, func(e *Entry) { dead = append(dead, e.QueueID) })
			}
			b.apply(r, places[0].offset, places[0].length)
			places = places[1:]
			for _, id := range dead {
				_ = removeFile(b.body(id)) // an orphan otherwise: removed at the next open
			}
		}
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// reserve allocates room behind the index, so that small records can be written on a full disk.
func (b *Box) reserve() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	if b.size+reserveBytes <= b.reserved {
		return nil
	}
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	err := syscall.Fallocate(int(b.index.Fd()), keepSize, b.size, 2*reserveBytes)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("reserve index: %w", err)
	}
	b.reserved = b.size + 2*reserveBytes
	return nil
}
