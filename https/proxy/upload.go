package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// finishTime is how long a sent body may take to be known as sent, when the answer is there.
const finishTime = 50 * time.Millisecond

// upload is the body of a request on its way to the app, in a goroutine of its own: the app may
// answer before it has read it all. The methods of a nil upload are those of no body.
type upload struct {
	body     io.Reader
	sent     chan error // gets the result of sending the request
	complete atomic.Bool
	stopped  atomic.Bool
	failed   atomic.Pointer[error]
}

func newUpload(body io.Reader) *upload { return &upload{body: body, sent: make(chan error, 1)} }

// Read implements io.Reader. After stop it does not touch the body, which is net/http's again.
func (u *upload) Read(b []byte) (int, error) {
	if u.stopped.Load() {
		return 0, net.ErrClosed
	}
	n, err := u.body.Read(b)
	switch {
	case errors.Is(err, io.EOF):
		u.complete.Store(true)
	case err != nil:
		u.failed.Store(&err)
	}
	return n, err
}

// Close implements io.Closer. net/http closes the body of a request that it serves.
func (u *upload) Close() error { return nil }

// start sends the request. When the body cannot be read, no answer to it will come.
func (u *upload) start(l *line, out *http.Request) {
	go func() {
		err := l.send(out)
		if err != nil && (u.failure() != nil || !isClosing(err)) {
			_ = l.Close() // ends the wait for the answer
		}
		u.sent <- err
	}()
}

// isClosing reports whether err, of sending a request, is that of the connection. The app may have
// answered before it closed the connection.
func isClosing(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

// failure is the error of reading the client's body.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	if err := u.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// finished reports whether the whole request was sent, so that the connection can take another.
func (u *upload) finished() bool {
	if u == nil {
		return true
	}
	wait := time.Duration(0)
	if u.complete.Load() {
		wait = finishTime
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-u.sent:
		return err == nil
	case <-timer.C:
		return false
	}
}

// stop ends the reading of the body.
func (u *upload) stop() {
	if u != nil {
		u.stopped.Store(true)
	}
}
