package mailbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"
)

// What the delivery into the VM asks of a mailbox, beside Pending, Delivered and Park.

// PendingAfter returns the first message behind both the delivery cursor and uid.
func (b *Box) PendingAfter(uid uint32) (Entry, bool) {
	s := b.shown.Load()
	pages := s.Entries.Pages()
	page, i := s.Entries.search(max(s.cursor, uid) + 1)
	for ; page < len(pages); page, i = page+1, 0 {
		for _, e := range pages[page].Entries()[i:] {
			if e.Flags&local == 0 {
				return e, true
			}
		}
	}
	return Entry{}, false
}

// Passed returns the last n messages up to the delivery cursor, the oldest first.
func (b *Box) Passed(n int) []Entry {
	s := b.shown.Load()
	pages := s.Entries.Pages()
	page, i := s.Entries.search(s.cursor + 1)
	var passed []Entry
	for ; page >= 0; page-- {
		if page < len(pages) {
			for _, e := range slices.Backward(pages[page].Entries()[:i]) {
				if e.Flags&local == 0 && len(passed) < n {
					passed = append(passed, e)
				}
			}
		}
		if len(passed) == n {
			break
		}
		if page > 0 {
			i = pages[page-1].Len()
		}
	}
	slices.Reverse(passed)
	return passed
}

// Parked returns the first n messages that are parked.
func (b *Box) Parked(n int) []Entry {
	var parkedOnes []Entry
	s := b.shown.Load()
	n = min(n, s.parked)
	for _, e := range s.Entries.All() {
		if len(parkedOnes) == n {
			break
		}
		if e.Flags&parked != 0 {
			parkedOnes = append(parkedOnes, e)
		}
	}
	return parkedOnes
}

// Redeliver parks those of uids that are in the guest, so that they are delivered again. Messages that IMAP
// has added are not for the guest, and are left out.
func (b *Box) Redeliver(uids []uint32) error {
	entries := b.shown.Load().Entries
	uids = slices.DeleteFunc(slices.Clone(uids), func(uid uint32) bool {
		e, ok := entries.Find(uid)
		return !ok || e.Flags&local != 0
	})
	if len(uids) == 0 {
		return nil
	}
	return b.do(&frame{kind: kindFlags, flags: parked, meta: encodeUIDs(uids)})
}

// Waiting returns how many messages are not in the guest, and when the oldest of them was received.
func (b *Box) Waiting() (n int, oldest time.Time) {
	s := b.shown.Load()
	older := func(e Entry) {
		n++
		if oldest.IsZero() || e.Received.Before(oldest) {
			oldest = e.Received
		}
	}
	if s.parked > 0 {
		for _, e := range b.Parked(s.parked) {
			if e.UID <= s.cursor {
				older(e)
			}
		}
	}
	page, i := s.Entries.search(s.cursor + 1)
	for ; page < len(s.Entries.pages); page, i = page+1, 0 {
		for _, e := range s.Entries.pages[page].Entries()[i:] {
			if e.Flags&local == 0 {
				older(e)
			}
		}
	}
	return n, oldest
}

// Unpark records that a parked message is on the guest's disk.
func (b *Box) Unpark(uid uint32) error {
	return b.submit(newTicket(waitOn, &frame{kind: kindFlags, clear: parked, meta: encodeUIDs([]uint32{uid})}))
}

// Envelope returns the addresses of a message as SMTP had them; from is empty for a bounce. It fails as
// Open does.
func (b *Box) Envelope(uid uint32) (from, rcpt string, err error) {
	env, err := b.envelope(uid)
	return env.from, env.rcpt, damage(err)
}

// damage makes an error over a message that is missing or damaged one for Damaged.
func damage(err error) error {
	if errors.Is(err, errFrame) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}
