package guard

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Conn is a guarded connection.
type Conn struct {
	net.Conn
	listener *Listener
	peer     peer
	end      time.Time

	first   []byte // of the client's first line, as far as it has come; used by Read alone
	checked bool

	mu       sync.Mutex
	busy     bool      // in a transfer that shutdown must not cut
	until    time.Time // the transfer's own limit
	writes   int       // left
	draining bool
}

// NetConn gives the connection beneath.
func (g *Conn) NetConn() net.Conn { return g.Conn }

// Begin says that a transfer starts, which must end within limit and which shutdown lets finish.
func (g *Conn) Begin(limit time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.until = true, time.Now().Add(limit)
}

// End says that the transfer is over.
func (g *Conn) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.until = false, time.Time{}
}

var errWrites = errors.New("too many commands in one session")

// Read reads within the deadlines, and looks for an HTTP request in the first line.
func (g *Conn) Read(p []byte) (int, error) {
	g.mu.Lock()
	err := g.Conn.SetReadDeadline(g.deadline())
	g.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	if !g.checked && g.isHTTP(p[:n]) {
		_, _ = g.Write([]byte(g.listener.HTTPReply + "\r\n")) // a courtesy
		_ = g.Close()                                         // the read gives the error that matters
		return 0, net.ErrClosed
	}
	return n, err // servers look for io.EOF and net.Error
}

// Write writes within the idle limit, and fails after too many writes.
func (g *Conn) Write(p []byte) (int, error) {
	g.mu.Lock()
	g.writes--
	spent := g.writes < 0
	g.mu.Unlock()
	if spent {
		_ = g.Close() // the error below matters
		return 0, errWrites
	}
	if err := g.Conn.SetWriteDeadline(time.Now().Add(g.listener.Limits.Idle)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// SetDeadline does nothing: the guard's own deadlines hold, whatever the server thinks.
func (g *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing, as SetDeadline.
func (g *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing, as SetDeadline.
func (g *Conn) SetWriteDeadline(time.Time) error { return nil }

// Close closes the connection and gives its place back.
func (g *Conn) Close() error {
	g.listener.release(g)
	return g.Conn.Close()
}

// deadline is when the next read must be done. The caller holds g.mu.
func (g *Conn) deadline() time.Time {
	now := time.Now()
	if g.draining && !g.busy {
		return now
	}
	d := now.Add(g.listener.Limits.Idle)
	if g.busy && g.until.Before(d) {
		d = g.until
	}
	if g.end.Before(d) {
		d = g.end
	}
	return d
}

func (g *Conn) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	if !g.busy {
		_ = g.Conn.SetReadDeadline(time.Now()) // fails on a closed one only
	}
}
