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
	leave    func()    // see Listener.enter
	end      time.Time // of its life

	first   []byte // of the client's first line so far; used by Read alone
	checked bool   // the first line is no HTTP request; used by Read alone

	mu       sync.Mutex
	idle     time.Duration // see SetIdle
	busy     bool          // in a transfer that shutdown must not cut
	until    time.Time     // when the transfer must have ended
	writes   int           // left
	draining bool
}

// NetConn returns the connection beneath.
func (g *Conn) NetConn() net.Conn { return g.Conn }

// Begin starts a transfer. It must end within limit, and Drain does not interrupt it.
func (g *Conn) Begin(limit time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.until = true, time.Now().Add(limit)
}

// End ends the transfer.
func (g *Conn) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.until = false, time.Time{}
}

// SetIdle sets how long the next reads may wait, instead of Limits.Idle.
func (g *Conn) SetIdle(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = d
}

// Draining is closed by Drain.
func (g *Conn) Draining() <-chan struct{} { return g.listener.drained }

var errWrites = errors.New("too many commands in one session")

// Read reads within the deadlines, and closes the connection if the first line is an HTTP request.
func (g *Conn) Read(p []byte) (int, error) {
	crowded := g.listener.crowded()
	g.mu.Lock()
	err := g.Conn.SetReadDeadline(g.deadline(crowded))
	g.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	if !g.checked && g.isHTTP(p[:n]) {
		_, _ = g.Write([]byte(g.listener.replies.HTTP + "\r\n")) // a courtesy
		_ = g.Close()                                            // the error below is the one that matters
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
		_ = g.Close() // the error below is the one that matters
		return 0, errWrites
	}
	if err := g.Conn.SetWriteDeadline(time.Now().Add(g.listener.limits.Idle)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// CloseWrite closes the sending half, if the connection beneath supports it.
func (g *Conn) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetDeadline does nothing: the guard's deadlines are the only ones.
func (g *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing, like SetDeadline.
func (g *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing, like SetDeadline.
func (g *Conn) SetWriteDeadline(time.Time) error { return nil }

// Close closes the connection and stops counting it.
func (g *Conn) Close() error {
	g.listener.release(g)
	return g.Conn.Close()
}

// deadline is when the next read must have ended. The caller holds g.mu.
func (g *Conn) deadline(crowded bool) time.Time {
	now := time.Now()
	if g.draining && !g.busy {
		return now
	}
	idle := g.idle
	if crowded && !g.busy {
		idle = min(idle, g.listener.limits.Crowded)
	}
	d := now.Add(idle)
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
		_ = g.Conn.SetReadDeadline(time.Now()) // it fails only on a closed connection
	}
}
