package relay

import (
	"context"
	"fmt"
	"os"
	"sync"

	"lodge/gateway"
)

// find finds the VMs that have something in the queue on disk.
func (q *Queue) find(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read queue: %w", err)
	}
	q.unread = map[gateway.ID]func() error{}
	for _, e := range entries {
		if id, err := gateway.ParseID(e.Name()); err == nil { // else it is the store's own
			q.unread[id] = q.reader(id)
		}
	}
	return nil
}

// reader returns what reads a VM's box, once.
func (q *Queue) reader(id gateway.ID) func() error {
	return sync.OnceValue(func() error { return q.readBox(id) })
}

// readAll reads what is on disk, one VM after the other, until ctx ends. Mail of each goes out as soon as it is read.
func (q *Queue) readAll(ctx context.Context) {
	q.mu.Lock()
	var all []gateway.ID
	for id := range q.unread {
		all = append(all, id)
	}
	q.mu.Unlock()
	for _, id := range all {
		if ctx.Err() != nil {
			return
		}
		if q.config.Known != nil && !q.config.Known(id) { // removed while nothing was sent: an heir of its name has nothing of it
			if err := q.Remove(id); err != nil {
				q.config.Logger.Error("queue of a VM not removed", "vm_id", id.String(), "err", err)
			}
			continue
		}
		if err := q.read(id); err != nil { // others' mail goes out
			q.config.Logger.Error("queue of a VM not read", "vm_id", id.String(), "err", err)
		}
	}
}

// read reads what a VM has on disk, unless that is done: limits count it before more comes.
func (q *Queue) read(id gateway.ID) error {
	q.mu.Lock()
	read := q.unread[id]
	q.mu.Unlock()
	if read == nil {
		return nil
	}
	return read()
}

func (q *Queue) readBox(id gateway.ID) error {
	letters, err := q.letters(id)
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, still := q.unread[id]; !still { // it was removed
		return err
	}
	if err != nil { // the next letter of the VM tries again, and is not accepted before that works
		q.unread[id] = q.reader(id)
		return err
	}
	q.add(id, letters)
	delete(q.unread, id)
	return nil
}

// letters reads the letters of a VM, the oldest first. One whose envelope cannot be read stays on disk.
func (q *Queue) letters(id gateway.ID) (all []letter, err error) {
	box, err := q.store.Box(id)
	if err != nil {
		return nil, err
	}
	for _, e := range box.Snapshot().Entries.All() {
		_, to, err := box.Envelope(e.UID)
		if err != nil || to == "" {
			q.config.Logger.Error("message damaged", "vm_id", id.String(), "queue_id", e.QueueID, "err", err)
			continue
		}
		all = append(all, letter{uid: e.UID, queueID: e.QueueID, to: to, bytes: e.Bytes, noted: e.Flags&notedFlag != 0, born: e.Received})
	}
	return all, nil
}
