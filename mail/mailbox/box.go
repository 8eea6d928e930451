package mailbox

import (
	"cmp"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"lodge/gateway"
)

// Box is one VM's mailbox. A change returns once it is synced to disk, and becomes visible only
// then.
type Box struct {
	dir    string
	logger *slog.Logger

	mu       sync.Mutex
	bodies   *os.File // the directory msg, to sync it
	index    *os.File
	size     int64   // of the index up to its last good record
	reserved int64   // the index may grow to here even on a full disk
	lines    int     // records in the index, for compaction
	entries  []Entry // by UID
	byID     map[string]uint32
	validity uint32
	nextUID  uint32
	cursor   uint32
	mod      uint64        // counts changes
	changed  chan struct{} // closed at the next change

	queue   []*ticket // waiting for the next batch
	leading bool      // lead is running
	idle    *sync.Cond
	broken  error // why changes fail: closed, or the index is in an unknown state
}

// Entry is the part of a message that is kept in memory.
type Entry struct {
	QueueID  string
	UID      uint32
	Flags    Flags
	Bytes    int64 // of the message, trace headers included
	Received time.Time
	Mod      uint64 // Box.Mod after the entry's last change

	offset int64 // of its add record in the index
	length int
}

// Snapshot is a mailbox at one moment.
type Snapshot struct {
	Entries  []Entry // by UID; a copy
	Validity uint32  // UIDVALIDITY (RFC 9051 §2.3.1.1), set when the mailbox is created
	NextUID  uint32
	Mod      uint64
}

// Snapshot returns the current state.
func (b *Box) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Snapshot{Entries: slices.Clone(b.entries), Validity: b.validity, NextUID: b.nextUID, Mod: b.mod}
}

// Changed returns the number of changes so far, and a channel that the next change closes.
func (b *Box) Changed() (uint64, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mod, b.changed
}

// Pending returns the first message behind the delivery cursor.
func (b *Box) Pending() (Entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.search(b.cursor + 1)
	if i == len(b.entries) {
		return Entry{}, false
	}
	return b.entries[i], true
}

// Delivered moves the cursor: every message up to uid is on the guest's disk.
func (b *Box) Delivered(uid uint32) error {
	return b.do([]record{{Op: opCursor, UID: uid}})
}

// SetFlags makes the flags of uids (old &^ unset) | set. Unknown UIDs are ignored.
func (b *Box) SetFlags(uids []uint32, set, unset Flags) error {
	if len(uids) == 0 {
		return nil
	}
	return b.do([]record{{Op: opFlags, UIDs: uids, Flags: set & AllFlags, Clear: unset & AllFlags}})
}

// Expunge removes messages.
func (b *Box) Expunge(uids []uint32) error {
	if len(uids) == 0 {
		return nil
	}
	return b.do([]record{{Op: opExpunge, UIDs: uids}})
}

// List returns the newest messages first, at most limit of them (all when limit is 0).
func (b *Box) List(limit int) ([]gateway.Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.entries)
	if limit > 0 {
		n = min(n, limit)
	}
	list := make([]gateway.Message, 0, n)
	for _, e := range slices.Backward(b.entries[len(b.entries)-n:]) {
		r, err := b.read(e)
		if err != nil {
			return nil, err
		}
		list = append(list, gateway.Message{
			QueueID: e.QueueID, UID: e.UID, From: r.From, Rcpt: r.Rcpt, Subject: r.Subject,
			Bytes: e.Bytes, Received: e.Received, Delivered: e.UID <= b.cursor,
		})
	}
	return list, nil
}

// Find returns the message with a queue id.
func (b *Box) Find(queueID string) (Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	uid, ok := b.byID[queueID]
	if !ok {
		return Entry{}, errNoMessage()
	}
	return b.entries[b.search(uid)], nil
}

// close waits for the changes in progress. Later ones fail with reason.
func (b *Box) close(reason error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken == nil {
		b.broken = reason
	}
	for b.leading {
		b.idle.Wait()
	}
	b.closeFiles()
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Box) closeFiles() {
	_ = b.bodies.Close() // opened for reading only
	if b.index != nil {
		_ = b.index.Close() // every record was synced when it was written
	}
}

// search returns the index of the first entry with at least uid. The caller holds b.mu.
func (b *Box) search(uid uint32) int {
	i, _ := slices.BinarySearchFunc(b.entries, uid, func(e Entry, uid uint32) int { return cmp.Compare(e.UID, uid) })
	return i
}

// apply makes a record's change in memory. The caller holds b.mu or is the only user of b.
func (b *Box) apply(r record, offset int64, length int) {
	b.lines++
	b.mod++
	switch r.Op {
	case opHead:
		b.validity, b.nextUID = r.Validity, max(b.nextUID, r.UID)
	case opAdd:
		b.add(r, offset, length)
	case opFlags:
		b.each(r.UIDs, func(e *Entry) { e.Flags, e.Mod = e.Flags&^r.Clear|r.Flags, b.mod })
	case opExpunge:
		b.expunge(r.UIDs)
	case opCursor:
		b.cursor = max(b.cursor, r.UID)
	}
}

func (b *Box) add(r record, offset int64, length int) {
	i := b.search(r.UID)
	if _, twice := b.byID[r.QueueID]; twice || (i < len(b.entries) && b.entries[i].UID == r.UID) {
		return // never written; the first one stays
	}
	b.entries = slices.Insert(b.entries, i, Entry{
		QueueID: r.QueueID, UID: r.UID, Flags: r.Flags & AllFlags, Bytes: r.Bytes, Received: r.Received, Mod: b.mod,
		offset: offset, length: length,
	})
	b.byID[r.QueueID] = r.UID
	b.nextUID = max(b.nextUID, r.UID+1)
}

func (b *Box) expunge(uids []uint32) {
	gone := make(map[uint32]struct{}, len(uids))
	b.each(uids, func(e *Entry) {
		gone[e.UID] = struct{}{}
		delete(b.byID, e.QueueID)
	})
	b.entries = slices.DeleteFunc(b.entries, func(e Entry) bool { _, is := gone[e.UID]; return is })
}

func (b *Box) each(uids []uint32, f func(*Entry)) {
	for _, uid := range uids {
		if i := b.search(uid); i < len(b.entries) && b.entries[i].UID == uid {
			f(&b.entries[i])
		}
	}
}

func (b *Box) body(queueID string) string { return filepath.Join(b.dir, "msg", queueID) }
