package mailbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// Letter is one recipient's record of a staged message.
type Letter struct {
	VM       gateway.ID
	QueueID  string // from NewQueueID
	From     string // envelope sender, empty for a bounce
	Rcpt     string // envelope recipient
	Subject  string
	Head     string // trace headers on top of the body, with CRLF line ends
	Received time.Time
	Report   bool // by this host, on the VM's own mail: its quota does not refuse it

	flags Flags // from the start
}

// Commit records the message for every letter, all or none, and returns once that is synced to
// disk. A crash while several VMs' records are written may leave some of them; the sender got no
// reply and sends again. A full disk gives KindNoSpace, see Room, and so does a full mailbox, see
// OverQuota: a message for several VMs is then refused for all of them, as SMTP has one reply for it.
// Whoever asked Fits for each recipient sees that only when they fill up in between.
func (s *Store) Commit(st *Staged, letters []Letter) error {
	if st.f == nil && st.bytes*int64(len(letters)) > maxBatchBytes {
		if err := st.spill(); err != nil {
			return err
		}
	}
	if st.f != nil {
		if err := st.f.Sync(); err != nil {
			return withKind(fmt.Errorf("sync message: %w", err))
		}
	}
	if err := s.Room(int64(len(st.buf) * len(letters))); err != nil {
		return err
	}
	byVM := map[gateway.ID][]Letter{}
	for _, l := range letters {
		byVM[l.VM] = append(byVM[l.VM], l)
	}
	adds := make([]*addition, 0, len(byVM))
	err := s.prepare(&adds, st, byVM)
	if err == nil {
		err = commit(adds)
	}
	if err != nil {
		rollback(adds)
	}
	for _, a := range adds {
		a.box.release(a.claimed)
	}
	return withKind(err)
}

// prepare prepares the additions of all VMs, until one fails.
func (s *Store) prepare(adds *[]*addition, st *Staged, byVM map[gateway.ID][]Letter) error {
	for id, mine := range byVM {
		b, err := s.Box(id)
		if err != nil {
			return err
		}
		a := &addition{box: b}
		*adds = append(*adds, a)
		if err := a.prepare(st, mine, s.settings(id).QuotaBytes); err != nil {
			return err
		}
	}
	return nil
}

// addition is one VM's part in a Commit.
type addition struct {
	box     *Box
	frames  []*frame
	links   []string // in big
	claimed int64    // of the quota
	done    bool
}

// prepare claims the quota and makes the frames. A body that is a file is linked into big, synced, before
// one of them can be written.
func (a *addition) prepare(st *Staged, letters []Letter, quota int64) error {
	size := st.bytes * int64(len(letters))
	for _, l := range letters {
		size += int64(len(l.Head))
		if l.Report {
			quota = 0
		}
	}
	if err := a.box.claim(size, quota); err != nil {
		return err
	}
	a.claimed = size
	for _, l := range letters {
		f := &frame{
			kind: kindAdd, flags: l.flags, received: l.Received.UTC().Truncate(time.Millisecond),
			meta:  envelope{l.QueueID, l.From, l.Rcpt, l.Subject, l.Head}.encode(),
			bytes: st.bytes, sum: st.sum, body: st.buf,
		}
		if st.f != nil {
			f.kind = kindAddFile
			path := a.box.big(l.QueueID)
			if err := os.Link(st.f.Name(), path); err != nil {
				return fmt.Errorf("link message: %w", err)
			}
			a.links = append(a.links, path)
		}
		a.frames = append(a.frames, f)
	}
	if len(a.links) > 0 {
		return durable.Sync(a.box.big(""))
	}
	return nil
}

// commit commits all additions. None begins before the gates of all boxes are open at the same moment, so that a
// checkpoint of one VM leaves nothing at the others that would have to be undone.
func commit(adds []*addition) error {
	slices.SortFunc(adds, func(a, b *addition) int { return strings.Compare(a.box.dir, b.box.dir) })
	tickets := make([]*ticket, len(adds))
	for i, a := range adds {
		tickets[i] = newTicket(waitABit, a.frames...)
		if err := tickets[i].check(); err != nil {
			return err
		}
	}
	for {
		held, err := enqueueAll(adds, tickets)
		if err != nil {
			return err
		}
		if held == nil {
			break
		}
		if !held.gate.Pass(func() bool { return true }) {
			return errHeld()
		}
	}
	var errs []error
	for i, a := range adds {
		err := <-tickets[i].done
		a.done = err == nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// enqueueAll enqueues all tickets, or none: after an error, or if it returns a box that is held. adds are in the
// order in which all callers lock their boxes.
func enqueueAll(adds []*addition, tickets []*ticket) (held *Box, err error) {
	locked := 0
	defer func() {
		for _, a := range adds[:locked] {
			a.box.mu.Unlock()
		}
	}()
	for _, a := range adds {
		b := a.box
		b.mu.Lock()
		locked++
		if b.broken != nil {
			return nil, b.broken
		}
		if b.gate.Held() {
			return b, nil
		}
	}
	for i, a := range adds {
		a.box.queueUp(tickets[i])
	}
	return nil, nil
}

// rollback removes the additions of a transaction that failed at another VM.
func rollback(adds []*addition) {
	for _, a := range adds {
		if a.done {
			uids := make([]uint32, 0, len(a.frames))
			for _, f := range a.frames {
				uids = append(uids, f.uid)
			}
			// If this fails too, the VM gets the message twice after the next attempt of the
			// sender.
			_ = a.box.submit(newTicket(waitOn, &frame{kind: kindExpunge, meta: encodeUIDs(uids)}))
			continue
		}
		for _, path := range a.links {
			_ = removeFile(path) // never accepted; the next start moves it to lost otherwise
		}
	}
}
