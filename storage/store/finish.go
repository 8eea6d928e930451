package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// finishEvery is how often failed restores and drops are tried again.
const finishEvery = time.Minute

// finish goes on with restores and drops that have failed, as on a full disk, once there is room: until then their VMs
// would be refused. Run calls it every minute.
func (s *Store) finish(ctx context.Context) error {
	s.mu.Lock()
	known := slices.Collect(maps.Values(s.accounts))
	s.mu.Unlock()
	for _, a := range known {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.finishOne(a); err != nil {
			s.log.Error("rollback or removal of a checkpoint not finished", slog.String("vm_id", a.vm.String()), slog.Any("err", err))
		}
	}
	return nil
}

func (s *Store) finishOne(a *account) error {
	record := a.unfinished()
	if record == nil {
		return nil
	}
	if err := s.hasRoom(0); err != nil {
		if errors.Is(err, ErrFull) {
			return nil // the next time, perhaps
		}
		return err
	}
	err := s.goOn(a, record)
	if errors.Is(err, ErrRemoved) {
		return nil
	}
	return err
}

// goOn goes on with what a record of the progress is about, unless that has ended: whoever began it may have tried
// again meanwhile. It begins nothing.
func (s *Store) goOn(a *account, record []byte) error {
	id := decodeSeq(record[1:])
	if record[0] == dropping {
		return s.dropSnapshot(a, id)
	}
	return a.gate.While(func() error {
		a.commits.Lock()
		defer a.commits.Unlock()
		if a.removed || !bytes.Equal(a.progress, record) {
			return nil
		}
		return s.restore(a, id)
	})
}

// unfinished returns the record of what is in progress; nil for nothing, or a fork.
func (a *account) unfinished() []byte {
	a.commits.RLock()
	defer a.commits.RUnlock()
	if a.removed || len(a.progress) != 9 || a.progress[0] != restoring && a.progress[0] != dropping {
		return nil
	}
	return bytes.Clone(a.progress)
}
