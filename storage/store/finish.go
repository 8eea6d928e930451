package store

import (
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
	what, name := a.unfinished()
	if what == 0 {
		return nil
	}
	if err := s.hasRoom(0); err != nil {
		if errors.Is(err, ErrFull) {
			return nil // the next time, perhaps
		}
		return err
	}
	err := error(nil)
	switch what {
	case restoring:
		err = s.Restore(a.vm, name)
	case dropping:
		err = s.Drop(a.vm, name)
	}
	if errors.Is(err, ErrNoSnapshot) || errors.Is(err, ErrRemoved) {
		return nil // it has ended meanwhile
	}
	return err
}

// unfinished returns what is in progress and with which snapshot; 0 for nothing, or a fork.
func (a *account) unfinished() (what byte, name string) {
	a.commits.RLock()
	defer a.commits.RUnlock()
	if a.removed || len(a.progress) != 9 {
		return 0, ""
	}
	id := decodeSeq(a.progress[1:])
	for _, n := range a.snaps {
		if n.id == id {
			return a.progress[0], n.name
		}
	}
	return 0, ""
}
