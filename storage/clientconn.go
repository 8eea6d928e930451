package storage

import (
	"context"
	"net/http"
	"time"
)

// stall is how long a client can neither send nor accept a byte.
const stall = 60 * time.Second

// clientConn is the connection of a request. Waiting for it ends after stall, and with the request's
// context: a client that stalls must not delay the removal of its VM. Errors of setting a deadline
// are ignored, since only tests have connections without deadlines.
type clientConn struct {
	conn  *http.ResponseController
	ended func() error // not nil once the request's context has ended
}

// newClientConn returns the client of a request. Call release before the handler returns, after which
// HTTP/2 has no stream to set a deadline of, and before ctx is cancelled by its owner.
func newClientConn(ctx context.Context, w http.ResponseWriter) (c clientConn, release func()) {
	c = clientConn{http.NewResponseController(w), ctx.Err}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		past := time.Unix(1, 0)
		_ = c.conn.SetReadDeadline(past)
		_ = c.conn.SetWriteDeadline(past)
	})
	return c, func() {
		if !stop() {
			<-cut
		}
	}
}

// reads prepares a read. It fails when the request's context has ended.
func (c clientConn) reads() error {
	_ = c.conn.SetReadDeadline(time.Now().Add(stall))
	return c.ended()
}

// hasRead ends the deadline of reads, which would end the answer, too.
func (c clientConn) hasRead() { _ = c.conn.SetReadDeadline(time.Time{}) }

// writes prepares a write. It fails when the request's context has ended.
func (c clientConn) writes() error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(stall))
	return c.ended()
}

// hasWritten ends the deadline of writes, for the connection's next request.
func (c clientConn) hasWritten() { _ = c.conn.SetWriteDeadline(time.Time{}) }
