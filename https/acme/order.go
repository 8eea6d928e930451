package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"lodge/gateway"
)

// Limits on orders, which strangers cause by handshakes.
const (
	maxPendingPerPeer = 48  // handshakes of one peer that wait for an order
	maxPending        = 192 // of all peers
	maxActive         = 32  // orders at the authority at once; the others wait
	maxNamesPerOwner  = 40  // certificates for ports and deep names of one VM, or for one custom domain
	maxFailures       = 4096
	firstRetry        = time.Minute // a name is not ordered again sooner than this after it failed
	longestRetry      = time.Hour
)

// The reasons why a name without a certificate gets none now.
var (
	errNotAllowed = errors.New("the name may have no certificate")
	errTooSoon    = errors.New("the last order for the name failed")
	errDraining   = errors.New("the daemon is stopping")
	errBusy       = errors.New("too many handshakes wait for a certificate")
	errTooMany    = errors.New("too many names of one owner")
)

// Order returns the certificate for the name of a handshake. If there is none, it is obtained while
// the client waits.
func (s *Source) Order(hello *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	if c, ok := s.Cached(name); ok {
		return c, nil
	}
	owner, ok := s.Owner(name)
	if !ok {
		return nil, errNotAllowed
	}
	switch {
	case s.draining.Err() != nil:
		return nil, errDraining
	case s.failed.recently(name, time.Now()):
		return nil, errTooSoon
	}
	leave, ok := s.pending.Enter(gateway.PeerOf(hello.Conn))
	if !ok {
		return nil, errBusy
	}
	defer leave()
	// net/http has set a deadline for a handshake that waits for the client alone
	if err := hello.Conn.SetDeadline(time.Now().Add(s.OrderLimit + 5*time.Second)); err != nil {
		return nil, err
	}
	ordered := s.flight.DoChan(name, func() (any, error) {
		return s.obtain(context.WithoutCancel(hello.Context()), name, owner)
	})
	select {
	case result := <-ordered:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*tls.Certificate), nil
	case <-hello.Context().Done():
		return nil, hello.Context().Err()
	}
}

// obtain orders a certificate, and remembers a failure.
func (s *Source) obtain(ctx context.Context, name, owner string) (*tls.Certificate, error) {
	if err := s.claim(name, owner); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.OrderLimit)
	defer cancel()
	ctx, stop := whileOpen(ctx, s.draining, 0)
	defer stop()
	err := s.obtainOne(ctx, name)
	if err == nil {
		if c, ok := s.Cached(name); ok {
			s.failed.remove(name)
			return c, nil
		}
		err = errors.New("the certificate is not valid at this time")
	}
	if s.draining.Err() != nil {
		return nil, errDraining
	}
	if full := s.storage.failure(); full != nil { // the authority is not to blame: certmagic tries a write before it orders
		s.unclaim(name)
		s.rarely.Do(func() { s.Logger.Warn("certificate not stored", "host", name, "err", full) })
		return nil, fmt.Errorf("store certificate for %s: %w", name, full)
	}
	// It counts on for a while: else each of ever new names would cause an order that fails.
	time.AfterFunc(firstRetry, func() {
		if _, ok := s.Cached(name); !ok {
			s.unclaim(name)
		}
	})
	s.failed.add(name, time.Now())
	s.Logger.Warn("certificate not obtained", "host", name, "err", err)
	return nil, fmt.Errorf("obtain certificate for %s: %w", name, err)
}

func (s *Source) obtainOne(ctx context.Context, name string) error {
	select {
	case s.active <- struct{}{}:
		defer func() { <-s.active }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// certmagic leaves a certificate in memory alone, though it may have expired in an outage
	s.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
	return s.web.ManageSync(ctx, []string{name})
}

// claim counts a name for its owner.
func (s *Source) claim(name, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for other, of := range s.owners {
		if of == owner && other != name {
			count++
		}
	}
	if count >= maxNamesPerOwner {
		return errTooMany
	}
	s.owners[name] = owner
	return nil
}

func (s *Source) unclaim(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.owners, name)
}

// failures has the names whose last order failed.
type failures struct {
	mu   sync.Mutex
	last map[string]failure
}

type failure struct {
	until time.Time     // no order before
	pause time.Duration // the next one is twice as long
}

func newFailures() *failures { return &failures{last: map[string]failure{}} }

func (f *failures) recently(name string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return now.Before(f.last[name].until)
}

func (f *failures) add(name string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pause := min(max(2*f.last[name].pause, firstRetry), longestRetry)
	f.last[name] = failure{until: now.Add(pause), pause: pause}
	if len(f.last) > maxFailures {
		f.drop()
	}
}

// drop removes the half whose time ends first.
func (f *failures) drop() {
	names := make([]string, 0, len(f.last))
	for name := range f.last {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return f.last[a].until.Compare(f.last[b].until) })
	for _, name := range names[:len(names)/2] {
		delete(f.last, name)
	}
}

func (f *failures) remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.last, name)
}
