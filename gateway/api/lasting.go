package api

import (
	"context"
	"sync"

	"lodge/gateway"
)

// lasting has the calls under way that last, such as a console. Each ends when its caller may no longer
// make it: a change of a VM or of people has all of them decided again.
type lasting struct {
	mu    sync.Mutex
	calls map[*lastingCall]struct{}
}

type lastingCall struct {
	session Session
	verb    verb
	vm      gateway.ID // zero: the host itself
	end     context.CancelCauseFunc
}

// while returns a context that ends, with errDenied as its cause, when the caller may no longer use v on a
// VM or, for the zero ID, on the host. Call end when the call is over.
func (s Session) while(ctx context.Context, v verb, vm gateway.ID) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	call := &lastingCall{session: s, verb: v, vm: vm, end: cancel}
	l := &s.api.lasting
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[call] = struct{}{}
	call.decide() // a change since the first decision did not find it
	return ctx, func() {
		cancel(nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.calls, call)
	}
}

func (c *lastingCall) decide() {
	m, _ := c.session.api.Directory.ByID(c.vm)
	if !c.session.may(c.verb, m) {
		c.end(errDenied(c.verb))
	}
}

// decide ends the calls whose callers may no longer make them.
func (l *lasting) decide() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for call := range l.calls {
		call.decide()
	}
}

// orDenied returns, in place of a call's error, that its caller may no longer make it.
func orDenied(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && gateway.KindOf(cause) == gateway.KindDenied {
		return cause
	}
	return err
}
