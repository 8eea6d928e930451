package mailbox

import (
	"context"
	"os"
	"slices"
	"time"

	"lodge/gateway"
)

const (
	keepFirst = time.Minute // after the start, when much else is to be done
	keepEvery = time.Hour

	removeBatch = 1000 // messages of one change
)

// Run removes mail that is older than its VM's settings keep it, until ctx ends: first a minute after the
// start, then every hour. Mail that is not in the guest yet stays.
func (s *Store) Run(ctx context.Context) {
	timer := time.NewTimer(keepFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			s.expire(ctx, now)
			timer.Reset(keepEvery)
		}
	}
}

// expire walks the mailboxes on disk whose VMs have a Keep, one at a time.
func (s *Store) expire(ctx context.Context, now time.Time) {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		s.logger.Warn("old mail not removed", "err", err)
		return
	}
	for _, d := range dirs {
		id, err := gateway.ParseID(d.Name())
		if err != nil {
			continue // the stage
		}
		keep := s.settings(id).Keep
		if keep == 0 || ctx.Err() != nil {
			continue
		}
		b, err := s.Box(id)
		if err == nil {
			err = b.expire(ctx, now.Add(-keep))
		}
		if err != nil {
			s.logger.Warn("old mail not removed", "vm_id", id.String(), "err", err)
		}
	}
}

// expire removes what was received before a moment and is in the guest. What is parked is not, and what came
// by IMAP never was.
func (b *Box) expire(ctx context.Context, before time.Time) error {
	s := b.Snapshot()
	var old []Entry
	for _, e := range s.Entries.All() {
		if s.Delivered(e) && e.Flags&local == 0 && e.Received.Before(before) {
			old = append(old, e)
		}
	}
	removed, err := b.remove(ctx, &s, old)
	if removed.Messages > 0 {
		b.logger.Info("old mail removed", "bytes", removed.Bytes)
	}
	return err
}

// Remove removes messages, on disk when it returns. If one of the queue ids does not exist (KindNotFound),
// or a message is not in the guest and r does not have Waiting (KindConflict), none is removed.
func (b *Box) Remove(ctx context.Context, r gateway.MailRemoval) (gateway.MailRemoved, error) {
	named := make(map[string]bool, len(r.QueueIDs))
	for _, id := range r.QueueIDs {
		named[id] = true
	}
	s := b.Snapshot()
	var chosen []Entry
	waiting := 0
	for _, e := range s.Entries.All() {
		if !r.All && !e.Received.Before(r.Before) && !named[e.QueueID] {
			continue
		}
		delete(named, e.QueueID)
		chosen = append(chosen, e)
		if !s.Delivered(e) {
			waiting++
		}
	}
	for id := range named {
		return gateway.MailRemoved{}, gateway.Errorf(gateway.KindNotFound, "no message %.100q", id).WithHint("lodge mail <vm> lists the messages.")
	}
	if waiting > 0 && !r.Waiting {
		return gateway.MailRemoved{}, gateway.Errorf(gateway.KindConflict, "%d of the %d messages are not in the VM yet", waiting, len(chosen)).
			WithHint("Nothing was removed. Remove them all the same: --yes")
	}
	return b.remove(ctx, &s, chosen)
}

// remove expunges messages of a snapshot, a batch at a time: changes of others come in between. It
// returns what was removed before ctx ended or an error.
func (b *Box) remove(ctx context.Context, s *Snapshot, chosen []Entry) (removed gateway.MailRemoved, err error) {
	for batch := range slices.Chunk(chosen, removeBatch) {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		uids := make([]uint32, 0, len(batch))
		for _, e := range batch {
			uids = append(uids, e.UID)
		}
		if err := b.Expunge(uids); err != nil {
			return removed, err
		}
		for _, e := range batch {
			removed.Messages++
			removed.Bytes += e.Bytes
			if !s.Delivered(e) {
				removed.Waiting++
			}
		}
	}
	return removed, nil
}
