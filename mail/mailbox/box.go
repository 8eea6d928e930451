package mailbox

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"lodge/gateway"
	"lodge/gateway/hold"
)

// Box is one VM's mailbox. A change returns once it is synced to disk, and becomes visible only
// then. Readers take a Snapshot and wait for no writer.
type Box struct {
	dir     string
	log     string   // dir/log; another one in a migration
	folders *Folders // of the VM
	logger  *slog.Logger
	shown   atomic.Pointer[Snapshot]

	checked sync.Map   // queue ids of files in big whose checksum was right
	naming  sync.Mutex // held while keywords are made

	gate    hold.Gate // of INBOX: closed while a mark is made
	mu      sync.Mutex
	nextUID uint32
	changed chan struct{} // closed at the next change
	queue   []*ticket     // waiting for the next batch
	leading bool          // lead is running
	idle    *sync.Cond
	broken  error // why changes fail: the mailbox was closed

	// Of lead alone, which runs once at a time.
	state    *state
	tail     *os.File // the last segment; nil: the next write begins a new one
	end      int64    // of the tail's last frame
	named    bool     // the names of the tail, and above it, are synced
	reserved int64    // the tail may grow to here even on a full disk
	dirty    bool     // the index is older than the log
	grown    int64    // bytes of the log since the index was written
	stuck    bool     // tidy failed: not again before the next segment
	spoilt   uint32   // number of a segment that could neither be begun nor removed
	indexed  *state   // of an index that does not fit the log; nil after the open
	unkept   bool     // there is damage without a copy in lost: no segment is removed, no index written

	draft bool // a log in a migration, whose damage is no loss

	stop <-chan struct{} // ends a migration; nil: nothing does

	segmentBytes int64              // smaller in tests
	datasync     func(fd int) error // fdatasync(2); in tests one that fails
}

// Snapshot returns the current state.
func (b *Box) Snapshot() Snapshot { return *b.shown.Load() }

// Changed returns the number of changes so far, and a channel that the next change closes.
func (b *Box) Changed() (uint64, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shown.Load().Mod, b.changed
}

// Pending returns the first message behind the delivery cursor.
func (b *Box) Pending() (Entry, bool) {
	return b.PendingAfter(0)
}

// Delivered records that every message up to uid is on the guest's disk, or parked. Like Park and Unpark it waits as
// long as a checkpoint holds changes back, since the guest may get the message twice without it.
func (b *Box) Delivered(uid uint32) error {
	return b.submit(newTicket(waitOn, &frame{kind: kindCursor, uid: uid}))
}

// Park records that delivery goes on behind uid, whose message is not in the guest.
func (b *Box) Park(uid uint32) error {
	park := &frame{kind: kindFlags, flags: parked, meta: encodeUIDs([]uint32{uid})}
	return b.submit(newTicket(waitOn, park, &frame{kind: kindCursor, uid: uid}))
}

// settable are the flags that clients set.
const settable = AllFlags | AllKeywords

// SetFlags makes the flags of uids (old &^ unset) | set. Unknown UIDs are ignored.
func (b *Box) SetFlags(uids []uint32, set, unset Flags) error {
	if len(uids) == 0 {
		return nil
	}
	return b.do(&frame{kind: kindFlags, flags: set & settable, clear: unset & settable, meta: encodeUIDs(uids)})
}

// Expunge removes messages.
func (b *Box) Expunge(uids []uint32) error {
	if len(uids) == 0 {
		return nil
	}
	return b.do(&frame{kind: kindExpunge, meta: encodeUIDs(uids)})
}

// List returns the newest messages first, at most limit of them (all when limit is 0).
func (b *Box) List(limit int) ([]gateway.Message, error) {
	s := b.Snapshot()
	n := s.Entries.Len()
	if limit > 0 {
		n = min(n, limit)
	}
	newest := make([]Entry, 0, n)
	for e := range s.Entries.Backward() {
		if len(newest) == n {
			break
		}
		newest = append(newest, e)
	}
	return b.Describe(newest), nil
}

// Describe returns messages as lists show them. Of one whose envelope cannot be read it shows what is in memory.
func (b *Box) Describe(entries []Entry) []gateway.Message {
	s := b.Snapshot()
	list := make([]gateway.Message, 0, len(entries))
	for _, e := range entries {
		env, err := b.envelope(e.UID)
		if err != nil && gateway.KindOf(err) != gateway.KindNotFound {
			b.logger.Error("message damaged", "queue_id", e.QueueID, "err", err)
		}
		list = append(list, gateway.Message{
			QueueID: e.QueueID, UID: e.UID, From: env.from, Rcpt: env.rcpt, Subject: env.subject,
			Bytes: e.Bytes, Received: e.Received, Delivered: s.Delivered(e),
		})
	}
	return list
}

// Find returns the message with a queue id.
func (b *Box) Find(queueID string) (Entry, error) {
	for _, e := range b.Snapshot().Entries.All() {
		if e.QueueID == queueID {
			return e, nil
		}
	}
	return Entry{}, errNoMessage()
}

// close waits for the changes in progress and writes the index. Later changes fail with reason.
func (b *Box) close(reason error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken == nil {
		b.broken = reason
	}
	for b.leading {
		b.idle.Wait()
	}
	if b.dirty && !b.unkept && gateway.KindOf(reason) != gateway.KindNotFound { // else it is being removed
		if err := b.writeIndex(); err != nil {
			b.logger.Warn("mailbox index not written", "err", err)
		}
	}
	b.seal()
	close(b.changed)
	b.changed = make(chan struct{})
}

// seal ends the tail: the next write begins a new segment. It frees what was reserved behind it.
func (b *Box) seal() {
	if b.tail != nil {
		_ = b.tail.Truncate(b.end) // else some room stays reserved
		_ = b.tail.Close()         // every frame was synced when it was written
		b.tail, b.reserved = nil, 0
	}
}

func (b *Box) big(queueID string) string { return filepath.Join(b.dir, "big", queueID) }

func (b *Box) path(s segment) string { return filepath.Join(b.log, s.name()) }
