package storage

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"lodge/gateway"
	"lodge/storage/store"
)

// expireEvery is how often the lifecycle rules of all buckets are carried out: what ends, ends at a
// midnight, as with S3.
const expireEvery = time.Hour

// expire carries out the lifecycle rules until ctx is done.
func (s *Server) expire(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		for _, m := range s.directory.All() {
			err := s.protocol.Expire(ctx, m.ID, time.Now())
			if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrRemoved) && !errors.Is(err, store.ErrHeld) {
				s.log.Error("lifecycle rules were not carried out", gateway.LogVM(m.Identity), slog.Any("err", err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
