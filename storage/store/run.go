package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	tidyEvery   = time.Hour
	scrubEvery  = 7 * 24 * time.Hour
	scrubPause  = 100 * time.Millisecond // between reads of at most 1 MiB
	uploadsLast = 7 * 24 * time.Hour
)

// Run ends abandoned uploads, goes on with restores that have failed, and reads all bodies once a week to find damage, which
// it logs, until ctx is done. It returns an error at once if the index has become unusable: then the process should end, since calls
// may be blocked for ever.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.UnlessFailed(func() error {
		var wg sync.WaitGroup
		wg.Go(func() { s.repeat(ctx, tidyEvery, s.tidy) })
		wg.Go(func() { s.repeat(ctx, scrubEvery, s.scrub) })
		wg.Go(func() { s.repeat(ctx, finishEvery, s.finish) })
		wg.Wait()
		return nil
	})
}

// UnlessFailed calls f, and returns its error. If the index becomes unusable before f ends, it returns that error
// without waiting: a call that uses the store may never end then.
func (s *Store) UnlessFailed(f func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		return err
	case <-s.failed:
		return s.failure
	}
}

// repeat calls f now and then, until ctx is done.
func (s *Store) repeat(ctx context.Context, every time.Duration, f func(context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("objects not examined", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Store) tidy(ctx context.Context) error {
	return errors.Join(s.disk.fill(), s.EndUploads(ctx), s.seal(ctx))
}

// EndUploads aborts the uploads that began more than 7 days ago. Run calls it every hour.
func (s *Store) EndUploads(ctx context.Context) error {
	vms, err := s.vms()
	if err != nil {
		return err
	}
	limit := s.cfg.Now().Add(-uploadsLast)
	for _, vm := range vms {
		err := s.eachUpload(vm, func(_ *Bucket, key Key, number uint64, record []byte) error {
			if started, err := startOf(record); err != nil || !started.Before(limit) {
				return err
			}
			err := s.Abort(key, uploadID(number))
			switch {
			case errors.Is(err, ErrNoUpload), errors.Is(err, ErrNoBucket), errors.Is(err, ErrRemoved):
				return nil // it has ended since the iteration began
			case errors.Is(err, ErrHeld), errors.Is(err, ErrUnfinished):
				return nil // those of others do not wait for it
			case err == nil:
				s.log.Info("abandoned upload removed", slog.String("vm_id", vm.String()),
					slog.String("bucket", key.Bucket), slog.String("object", key.Name))
			}
			return errors.Join(err, ctx.Err())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// scrub is a slow Check that logs what it finds.
func (s *Store) scrub(ctx context.Context) error {
	tick := time.NewTicker(scrubPause)
	defer tick.Stop()
	err := s.check(ctx, s.logDamage, func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			return nil
		}
	})
	return err
}

func (s *Store) logDamage(d Damage) {
	s.log.Error("stored data is damaged", slog.String("vm_id", d.VM.String()), slog.String("bucket", d.Bucket),
		slog.String("object", d.Name), slog.String("path", d.Blob), slog.Any("err", d.Err))
}
