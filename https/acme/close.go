package acme

import (
	"context"
	"time"
)

// drainLimit is how long records may take to be removed after Drain.
const drainLimit = 5 * time.Second

// Drain cancels the orders under way, and lets no handshake begin one: these get no certificate. The
// records of cancelled orders are removed within drainLimit.
func (s *Source) Drain() { s.drain() }

// Close drains, and stops the renewal of certificates. certmagic cannot cancel a question to the
// authority, so Close waits for one, until ctx ends and no longer than drainLimit. Further
// calls wait too.
func (s *Source) Close(ctx context.Context) {
	s.Drain()
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	s.stop.Do(func() {
		go func() { // it ends when the authority answers, after 30 s at most
			defer close(s.stopped)
			s.cache.Stop()
			_ = s.nothing.Close() // nothing is sent there
		}()
	})
	select {
	case <-s.stopped:
	case <-ctx.Done():
	}
}

// whileOpen returns a context that ends with ctx, or the given time after Drain.
func whileOpen(ctx, draining context.Context, after time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(draining, func() {
		select {
		case <-time.After(after):
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		stop()
		cancel()
	}
}
