package storage

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"

	"lodge/gateway"
	"lodge/gateway/relay"
	"lodge/storage/events"
	"lodge/storage/s3"
	"lodge/storage/store"
)

// wakeLater passes what the store queues to a Deliverer, which is made after the store is open.
type wakeLater struct {
	to atomic.Pointer[events.Deliverer]
}

func (w *wakeLater) wake(vm gateway.ID) {
	if d := w.to.Load(); d != nil {
		d.Wake(vm)
	}
}

// deliverer returns what posts the events of buckets into their VMs.
func (cfg Config) deliverer(objects *store.Store, rules *s3.Events) *events.Deliverer {
	dial := cfg.Dial
	if dial == nil {
		dial = func(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error) {
			return relay.Dial(ctx, "tcp4", m.Tap(), netip.AddrPortFrom(m.Addr, port))
		}
	}
	times := cfg.eventTimes
	if times == (events.Times{}) {
		times = events.DefaultTimes()
	}
	return events.New(events.Config{
		Queue: objects, Directory: cfg.Directory, Target: rules.Target, Dial: dial, Domain: cfg.Domain,
		Times: times, Logger: cfg.Logger,
	})
}
