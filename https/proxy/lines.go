package proxy

import (
	"bufio"
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"lodge/gateway"
)

// Limits of the connections to apps, on both roads.
const (
	maxIdle          = 512 // in all
	maxIdlePerTarget = 64
	idleTime         = 4 * time.Second // apps close idle connections later (Node.js: 5 s)
	maxResHeader     = 256 << 10
	lineBuffer       = 16 << 10 // also the limit of a response's trailers
)

// line is a connection to an app. One request at a time uses it.
type line struct {
	net.Conn
	pool     *lines
	key      lineKey
	raw      syscall.RawConn // nil where the state of the connection is unknown: it is not kept
	in       *bufio.Reader   // of the line itself, which counts
	out      *bufio.Writer
	left     int64     // bytes that may still be read
	since    time.Time // when it became idle
	reused   bool
	answered bool        // something was read since begin
	release  func() bool // undoes begin
}

// lineKey is a Target without what may change while a connection is open. The incarnation is in it,
// so that no connection outlives a start of the VM.
type lineKey struct {
	vm          gateway.ID
	incarnation uint32
	port        uint16
}

// errHeaderSize is the error for a response whose header is above maxResHeader.
var errHeaderSize = errors.New("the header is too large")

// Read implements io.Reader, within l.left.
func (l *line) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errHeaderSize
	}
	n, err := l.Conn.Read(b[:min(int64(len(b)), l.left)])
	l.left -= int64(n)
	l.answered = l.answered || n > 0
	return n, err
}

// send writes a request.
func (l *line) send(out *http.Request) error {
	if err := out.Write(l.out); err != nil {
		return err
	}
	return l.out.Flush()
}

// readHeader reads a response up to its body.
func (l *line) readHeader(out *http.Request) (*http.Response, error) {
	l.left = maxResHeader
	res, err := http.ReadResponse(l.in, out)
	l.left = math.MaxInt64
	return res, err
}

// begin prepares l for a request. When ctx ends, l is closed.
func (l *line) begin(ctx context.Context) {
	l.answered = false
	l.release = context.AfterFunc(ctx, func() { _ = l.Close() }) // what uses it gets the error
}

// end gives the line back: to the pool, when it is complete, or closes it.
func (l *line) end(complete bool) {
	alive := l.release == nil || l.release()
	if !complete || !alive || l.raw == nil || l.in.Buffered() > 0 || !l.pool.put(l) {
		_ = l.Close() // what was received is complete, or an error was returned
	}
}

// The state of an idle connection.
const (
	isOpen = iota
	hasData
	isClosed
)

// peek looks for data without waiting for it.
func (l *line) peek() int {
	state := isClosed
	err := l.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT) //nolint:gosec // a descriptor fits
		switch {
		case errors.Is(err, syscall.EAGAIN):
			state = isOpen
		case err == nil && n > 0:
			state = hasData
		}
		return true
	})
	if err != nil {
		return isClosed
	}
	return state
}

// lines keeps idle connections to apps. It is safe for concurrent use.
type lines struct {
	connect func(ctx context.Context, to Target) (net.Conn, error)

	mu       sync.Mutex
	idle     map[lineKey][]*line // the last one was used last
	n        int
	sweeping bool // a sweep is due
	closed   bool
}

func newLines(connect func(context.Context, Target) (net.Conn, error)) *lines {
	return &lines{connect: connect, idle: map[lineKey][]*line{}}
}

// take returns an idle connection to the target, or a new one. Data on an idle connection answers
// no request: such a connection is closed.
func (p *lines) take(ctx context.Context, to Target) (*line, error) {
	key := to.lineKey()
	for {
		l := p.pop(key)
		if l == nil {
			return p.dial(ctx, to)
		}
		if time.Since(l.since) < idleTime && l.peek() == isOpen {
			l.reused = true
			return l, nil
		}
		_ = l.Close() // it is idle
	}
}

func (p *lines) pop(key lineKey) *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[key]
	if len(kept) == 0 {
		return nil
	}
	l := kept[len(kept)-1]
	kept[len(kept)-1] = nil
	p.idle[key] = kept[:len(kept)-1]
	p.n--
	return l
}

func (p *lines) dial(ctx context.Context, to Target) (*line, error) {
	c, err := p.connect(ctx, to)
	if err != nil {
		return nil, err
	}
	l := &line{Conn: c, pool: p, key: to.lineKey(), left: math.MaxInt64}
	if s, ok := c.(syscall.Conn); ok {
		l.raw, _ = s.SyscallConn() // nil: the line is not kept
	}
	l.in, l.out = bufio.NewReaderSize(l, lineBuffer), bufio.NewWriterSize(c, lineBuffer)
	return l, nil
}

// put keeps an idle connection. It is false when there is no room.
func (p *lines) put(l *line) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[l.key]
	if p.closed || p.n >= maxIdle || len(kept) >= maxIdlePerTarget {
		return false
	}
	l.since = time.Now()
	p.idle[l.key] = append(kept, l)
	p.n++
	if !p.sweeping {
		p.sweeping = true
		time.AfterFunc(idleTime, p.sweep)
	}
	return true
}

// sweep closes what has been idle for idleTime. It runs until nothing is idle.
func (p *lines) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, kept := range p.idle {
		old := 0
		for old < len(kept) && time.Since(kept[old].since) >= idleTime {
			_ = kept[old].Close() // it is idle
			old++
		}
		p.n -= old
		if p.idle[key] = append(kept[:0:0], kept[old:]...); len(p.idle[key]) == 0 {
			delete(p.idle, key)
		}
	}
	if p.sweeping = p.n > 0; p.sweeping {
		time.AfterFunc(idleTime, p.sweep)
	}
}

// close closes idle connections, and keeps no further ones.
func (p *lines) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, kept := range p.idle {
		for _, l := range kept {
			_ = l.Close() // it is idle
		}
	}
	clear(p.idle)
	p.n = 0
}
