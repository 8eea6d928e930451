package mailbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
)

const (
	transferBytes    = 4 << 20 // of messages that are copied at once
	transferMessages = 500
)

// Append adds a staged message, which is not delivered into the guest, and returns its UID once it is synced
// to disk. It fails as Store.Commit does.
func (b *Box) Append(st *Staged, flags Flags, received time.Time, subject string) (uint32, error) {
	s := b.folders.store
	if st.f != nil {
		if err := st.f.Sync(); err != nil {
			return 0, withKind(fmt.Errorf("sync message: %w", err))
		}
	}
	if err := s.Room(int64(len(st.buf))); err != nil {
		return 0, err
	}
	if err := b.folders.takes(1); err != nil {
		return 0, err
	}
	letter := Letter{QueueID: NewQueueID(time.Now()), Received: received, Subject: subject, flags: flags&settable | local}
	a := &addition{box: b}
	err := a.prepare(st, []Letter{letter}, s.settings(b.folders.id).QuotaBytes)
	if err == nil {
		err = commit([]*addition{a})
	}
	if err != nil {
		rollback([]*addition{a})
	}
	b.release(a.claimed)
	if err != nil {
		return 0, withKind(err)
	}
	return a.frames[0].uid, nil
}

// Transferred is a message that was copied or moved: its UIDs in both mailboxes.
type Transferred struct{ From, To uint32 }

// Copy copies messages into a mailbox of the same VM, all of them or none, but for those that are expunged
// meanwhile. It returns once that is synced, and fails as Append does, and with an error for Damaged. A crash
// may leave some copies.
func (b *Box) Copy(uids []uint32, to *Box) (done []Transferred, err error) {
	for len(uids) > 0 {
		if err := to.folders.takes(min(len(uids), transferMessages)); err != nil {
			return done, err
		}
		var some []Transferred
		some, uids, err = b.transfer(uids, to, to.folders.store.settings(to.folders.id).QuotaBytes)
		done = append(done, some...)
		if err == nil {
			continue
		}
		var made []uint32
		for _, one := range done {
			made = append(made, one.To)
		}
		return nil, errors.Join(err, to.Expunge(made))
	}
	return done, nil
}

// Move moves messages. At each moment, also after a crash, a message is in at least one of both mailboxes.
// After an error it returns those that were moved. The quota does not count.
func (b *Box) Move(uids []uint32, to *Box) (done []Transferred, err error) {
	b.folders.moving.Lock()
	defer b.folders.moving.Unlock()
	for len(uids) > 0 {
		var some []Transferred
		if some, uids, err = b.transfer(uids, to, 0); err != nil {
			return done, err
		}
		var moved []uint32
		for _, one := range some {
			moved = append(moved, one.From)
		}
		if err := b.Expunge(moved); err != nil {
			return done, err // they are in both
		}
		done = append(done, some...)
	}
	return done, nil
}

// transfer copies the first of these messages, and returns those that are left.
func (b *Box) transfer(uids []uint32, to *Box, quota int64) (done []Transferred, left []uint32, err error) {
	a := &addition{box: to}
	var from []uint32
	size := int64(0)
	for left = uids; len(left) > 0 && len(from) < transferMessages && size < transferBytes; left = left[1:] {
		f, err := b.copyFrame(left[0], a)
		if gateway.KindOf(err) == gateway.KindNotFound {
			continue // it was expunged meanwhile
		}
		if err != nil {
			rollback([]*addition{a})
			return nil, nil, err
		}
		a.frames, from = append(a.frames, f), append(from, left[0])
		size += f.length()
	}
	if len(from) == 0 {
		return nil, left, nil
	}
	if err := to.add(a, quota); err != nil {
		return nil, nil, err
	}
	for i, uid := range from {
		done = append(done, Transferred{uid, a.frames[i].uid})
	}
	return done, left, nil
}

// add commits an addition whose frames and links are made.
func (b *Box) add(a *addition, quota int64) error {
	size, stored := int64(0), int64(0)
	for _, f := range a.frames {
		size += f.bytes // the trace headers in meta are little
		stored += f.length()
	}
	err := b.folders.store.Room(stored)
	if err == nil {
		err = b.claim(size, quota)
	}
	if err == nil {
		a.claimed = size
		if len(a.links) > 0 {
			err = durable.Sync(b.big(""))
		}
		if err == nil {
			err = commit([]*addition{a})
		}
		b.release(a.claimed)
	}
	if err != nil {
		rollback([]*addition{a})
	}
	return withKind(err)
}

// copyFrame returns a frame for a copy of a message, and links its body into the other mailbox if that is a
// file. It fails with KindNotFound, or with an error for Damaged.
func (b *Box) copyFrame(uid uint32, a *addition) (*frame, error) {
	var made *frame
	err := b.read(uid, func(s *Snapshot, e Entry) error {
		buf, f, err := b.readAt(s, e, e.at.length)
		if err != nil {
			return err
		}
		env, err := decodeEnvelope(f.meta)
		if err != nil {
			return err
		}
		if !e.at.file && checksum(buf[e.at.head:]) != f.sum {
			return errFrame
		}
		env.id = NewQueueID(time.Now())
		if e.at.file {
			path := a.box.big(env.id)
			if err := os.Link(b.big(e.QueueID), path); err != nil {
				return fmt.Errorf("link message: %w", err)
			}
			a.links = append(a.links, path)
		} else {
			f.body = slices.Clone(buf[e.at.head:])
		}
		f.flags, f.uid, f.meta = e.Flags&AllFlags|a.box.likeKeywords(s, e.Flags)|local, 0, env.encode()
		made = &f
		return nil
	})
	return made, damage(err)
}

// likeKeywords returns the flags that another mailbox's keywords have here. Those for which there is no room
// are left out.
func (b *Box) likeKeywords(s *Snapshot, flags Flags) Flags {
	if flags&AllKeywords == 0 {
		return 0
	}
	var all Flags
	for i, name := range s.Keywords {
		if flags&KeywordAt(i) == 0 {
			continue
		}
		if flag, err := b.Keywords([]string{name}); err == nil {
			all |= flag
		}
	}
	return all
}
