package mailbox

import (
	"context"
	"os"
	"time"

	"lodge/gateway"
)

const (
	keepFirst = time.Minute // after the start, when much else is to be done
	keepEvery = time.Hour
	keepBatch = 1000 // messages removed by one change
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

// expire removes what was received before a moment and is in the guest. What is parked is not.
func (b *Box) expire(ctx context.Context, before time.Time) error {
	s := b.Snapshot()
	var old []uint32
	var bytes int64
	for _, e := range s.Entries {
		if s.delivered(e) && e.Received.Before(before) {
			old = append(old, e.UID)
			bytes += e.Bytes
		}
	}
	if len(old) == 0 {
		return nil
	}
	for rest := old; len(rest) > 0 && ctx.Err() == nil; { // others' changes come in between
		n := min(len(rest), keepBatch)
		if err := b.Expunge(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	b.logger.Info("old mail removed", "bytes", bytes)
	return nil
}
