package acme

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	wire "github.com/mholt/acmez/v3/acme"

	"lodge/gateway/gatewaytest"
	"lodge/https/acme/acmetest"
)

// stuckRecords are those of a name server that does not answer.
type stuckRecords struct{ Records }

func (stuckRecords) Remove(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// A record is removed after the end of its order, in the time that the end of the daemon has for it.
func TestDrainLimitsTheRemovalOfRecords(t *testing.T) {
	for name, tt := range map[string]struct {
		before bool // the drain comes before the removal
		drain  bool
		want   time.Duration
	}{
		"no drain":         {want: removeLimit},
		"during a removal": {drain: true, want: time.Second + drainLimit},
		"before a removal": {drain: true, before: true, want: drainLimit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				draining, drain := context.WithCancel(t.Context())
				defer drain()
				switch {
				case tt.before:
					drain()
				case tt.drain:
					time.AfterFunc(time.Second, drain)
				}
				start := time.Now()
				err := solver{stuckRecords{}, draining}.CleanUp(t.Context(), wire.Challenge{})
				if took := time.Since(start); err == nil || took != tt.want {
					t.Errorf("%v after %v, want %v", err, took, tt.want)
				}
			})
		})
	}
}

// Handshakes that wait for an order end with Drain, and later ones begin none.
func TestDrainEndsOrders(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	s := f.open(p, func(c *Config) { c.OrderLimit = time.Hour })
	p.Stall.Store(true)
	ended := make(chan error, 1)
	go func() {
		_, err := f.handshake(p, "any-draining.blog."+domain)
		ended <- err
	}()
	gatewaytest.WaitFor(t, "an order", func() bool { return p.Stalled.Load() > 0 })
	s.Drain()
	gatewaytest.WaitFor(t, "the end of the handshake", func() bool { return len(ended) > 0 })
	if err := <-ended; err == nil {
		t.Error("it has a certificate")
	}
	before := p.Requests.Load()
	if _, err := f.handshake(p, "more-draining.blog."+domain); err == nil || p.Requests.Load() != before {
		t.Errorf("after Drain: %v, and %d requests to the authority", err, p.Requests.Load()-before)
	}
}

// Close does not wait for an authority that has a question about the renewal of a certificate.
func TestCloseWaitsForNoAuthority(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble(func(c *acmetest.Config) { c.AskAgain = true })
	s := f.open(p, func(c *Config) {
		c.CheckEvery = 50 * time.Millisecond
		c.Logger = new(gatewaytest.Log).Logger() // what still runs logs after the test
	})
	if _, err := f.handshake(p, "any-closing.blog."+domain); err != nil {
		t.Fatal(err)
	}
	p.Stall.Store(true)
	gatewaytest.WaitFor(t, "a question to the authority", func() bool { return p.Stalled.Load() > 0 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Close(ctx)
	if p.Stalled.Load() == 0 {
		t.Error("Close has waited for the answer")
	}
}
