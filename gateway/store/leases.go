package store

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"lodge/gateway"
)

const (
	leastLife = time.Second
	endRetry  = time.Second // after a lease could not be ended: the disk may be full for a while
)

// leases ends leases in time. The file has each lease with its life and its keys; how much of a
// life is left is known here alone, by the monotonic clock.
type leases struct {
	shared *Shared
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex
	ends map[gateway.LeaseID]time.Time
	wake chan struct{} // gets a value when ends has changed
}

// Lease implements gateway.Shared.
func (s *Shared) Lease(ctx context.Context, life time.Duration) (gateway.Lease, error) {
	if life < leastLife {
		return nil, gateway.Invalid("a lease of %s; at least %s are possible", life, leastLife)
	}
	res, err := s.db.ExecContext(ctx, `INSERT INTO shared_leases (life) VALUES (?)`, life)
	if err != nil {
		return nil, refine(err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		return nil, err
	}
	s.leases.begin(gateway.LeaseID(id), life)
	return &lease{shared: s, id: gateway.LeaseID(id), life: life}, nil
}

type lease struct {
	shared *Shared
	id     gateway.LeaseID
	life   time.Duration
}

// ID implements gateway.Lease.
func (l *lease) ID() gateway.LeaseID { return l.id }

// KeepAlive implements gateway.Lease.
func (l *lease) KeepAlive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !l.shared.leases.renew(l.id, l.life) {
		return errLeaseEnded()
	}
	return nil
}

// End implements gateway.Lease.
func (l *lease) End(ctx context.Context) error { return l.shared.leases.end(ctx, l.id, true) }

func errLeaseEnded() error { return gateway.Errorf(gateway.KindNotFound, "the lease has ended") }

// leaseExists fails when a lease has ended.
func leaseExists(ctx context.Context, tx *sql.Tx, id gateway.LeaseID) error {
	var n int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM shared_leases WHERE id = ?`, id).Scan(&n)
	if err == nil && n == 0 {
		err = errLeaseEnded()
	}
	return err
}

// startLeases begins every lease in the file anew, and ends each in its time until stop.
func startLeases(ctx context.Context, s *Shared) (*leases, error) {
	l := &leases{shared: s, ends: map[gateway.LeaseID]time.Time{}, wake: make(chan struct{}, 1)}
	type row struct {
		id   gateway.LeaseID
		life time.Duration
	}
	kept, err := query(ctx, s.db, func(r *row) []any { return []any{&r.id, &r.life} }, `SELECT id, life FROM shared_leases`)
	if err != nil {
		return nil, err
	}
	for _, r := range kept {
		l.begin(r.id, r.life)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	l.done.Go(func() { l.run(running) })
	return l, nil
}

func (l *leases) stop() {
	l.cancel()
	l.done.Wait()
}

func (l *leases) begin(id gateway.LeaseID, life time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[id] = time.Now().Add(life)
	select {
	case l.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// renew reports whether the lease had not ended. That a lease ends later wakes nobody: run looks
// at the old time, and again at the new one.
func (l *leases) renew(id gateway.LeaseID, life time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.ends[id]; !ok {
		return false
	}
	l.ends[id] = time.Now().Add(life)
	return true
}

// run ends leases in their time until ctx ends.
func (l *leases) run(ctx context.Context) {
	for ctx.Err() == nil {
		id, in, any := l.soonest()
		if any && in <= 0 {
			_ = l.end(ctx, id, false) // it is tried again
			continue
		}
		var due <-chan time.Time // never, without a lease
		if any {
			due = time.After(in)
		}
		select {
		case <-due:
		case <-l.wake:
		case <-ctx.Done():
		}
	}
}

// soonest returns the lease that ends first, and in what time.
func (l *leases) soonest() (id gateway.LeaseID, in time.Duration, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for one, ends := range l.ends {
		if left := time.Until(ends); !any || left < in {
			id, in, any = one, left, true
		}
	}
	return id, in, any
}

// end ends a lease, also an early one when the caller asks for that. It keeps l.mu, so that a
// KeepAlive either comes before or finds the keys deleted.
func (l *leases) end(ctx context.Context, id gateway.LeaseID, early bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends, ok := l.ends[id]
	if !ok || !early && time.Now().Before(ends) {
		return nil
	}
	if err := l.shared.dropLease(ctx, id); err != nil {
		if !early {
			l.ends[id] = time.Now().Add(endRetry) // the keys stay longer, which the contract allows
		}
		return err
	}
	delete(l.ends, id)
	return nil
}

// dropLease deletes a lease and its keys.
func (s *Shared) dropLease(ctx context.Context, id gateway.LeaseID) error {
	return s.change(ctx, func(c *change) error {
		held, err := query(ctx, c.tx, intoEntry, `SELECT key, value, revision FROM shared WHERE lease = ? ORDER BY key`, id)
		if err != nil {
			return err
		}
		for _, e := range held {
			if err := c.remove(ctx, e.Key); err != nil {
				return err
			}
		}
		_, err = c.tx.ExecContext(ctx, `DELETE FROM shared_leases WHERE id = ?`, id)
		return err
	})
}
