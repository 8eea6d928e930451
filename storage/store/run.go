package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"lodge/gateway"
)

const (
	tidyEvery   = time.Hour
	scrubEvery  = 7 * 24 * time.Hour
	scrubPause  = 100 * time.Millisecond // between reads of at most 1 MiB
	uploadsLast = 7 * 24 * time.Hour
)

// Run ends abandoned uploads and reads all bodies once a week to find damage, which it logs, until ctx is
// done. It returns an error at once if the index has become unusable: then the process should end, since calls
// may be blocked for ever.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.UnlessFailed(func() error {
		var wg sync.WaitGroup
		wg.Go(func() { s.repeat(ctx, tidyEvery, s.tidy) })
		wg.Go(func() { s.repeat(ctx, scrubEvery, s.scrub) })
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
	for _, vm := range vms {
		old, err := s.uploadsBefore(vm, s.cfg.Now().Add(-uploadsLast))
		if err != nil {
			return err
		}
		for _, u := range old {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := s.Abort(u.Key, u.ID); err != nil && !errors.Is(err, ErrNoUpload) && !errors.Is(err, ErrNoBucket) && !errors.Is(err, ErrRemoved) {
				return err
			}
			s.log.Info("abandoned upload removed", slog.String("vm_id", vm.String()),
				slog.String("bucket", u.Key.Bucket), slog.String("object", u.Key.Name))
		}
	}
	return nil
}

func (s *Store) uploadsBefore(vm gateway.ID, limit time.Time) (old []Upload, err error) {
	prefix := vmKey(vm, kindBucket, 0)
	err = each(s.index, prefix, func(key, v []byte) error {
		b, err := decodeBucket(vm, string(key[len(prefix):]), v)
		if err != nil {
			return err
		}
		return each(s.index, nameKey(vm, kindUpload, b.number, ""), func(key, v []byte) error {
			name, number, _ := seqIn(key)
			u, err := decodeUpload(Key{vm, b.Name, name}, number, v)
			if err == nil && u.Started.Before(limit) {
				old = append(old, u)
			}
			return err
		})
	})
	return old, err
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
