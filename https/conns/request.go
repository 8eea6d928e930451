package conns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSlow is the error of a request body that did not arrive in time.
var ErrSlow = errors.New("the request body made no progress")

type connKey struct{}

// Context is for http.Server.ConnContext, which passes values in no other way.
func Context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, of(c))
}

func from(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// Handler guards the requests that next serves.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := from(r.Context())
		if c == nil {
			next.ServeHTTP(w, r)
			return
		}
		growStack(0)
		c.requests.Add(1)
		c.last.Store(c.guard.now())
		defer func() {
			c.last.Store(c.guard.now())
			c.requests.Add(-1)
		}()
		if r.ProtoMajor >= 2 {
			st := c.begin(w, r)
			defer st.end()
			w = &streamWriter{w, st}
		} else if r.Body != nil && r.Body != http.NoBody {
			c.in.reset()
			c.owesBody.Store(true) // net/http reads what next leaves, until the connection is idle
			r.Body = &body{r.Body, c}
		}
		next.ServeHTTP(w, r)
	})
}

// body is a request body of HTTP/1. Its reads are those of its connection.
type body struct {
	io.ReadCloser
	conn *Conn
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.conn.owesBody.Store(false) // from now on net/http waits for the client to hang up
	}
	return n, err
}

// stream is a request of HTTP/2 or 3, which can wait for its client though the connection does not.
type stream struct {
	conn    *Conn
	control *http.ResponseController
	in, out flow
	slow    atomic.Bool // its body was cut

	mu    sync.Mutex
	ended bool
}

func (c *Conn) begin(w http.ResponseWriter, r *http.Request) *stream {
	st := &stream{conn: c, control: http.NewResponseController(w)}
	if r.Body != nil && r.Body != http.NoBody && !isOpenEnded(r) {
		r.Body = &streamBody{r.Body, st}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams == nil {
		c.streams = map[*stream]struct{}{}
	}
	c.streams[st] = struct{}{}
	return st
}

// isOpenEnded reports whether the body is a stream of messages, which may be quiet: a tunnel (RFC
// 8441) or gRPC.
func isOpenEnded(r *http.Request) bool {
	return r.Method == http.MethodConnect || IsGRPC(r.Header.Get("Content-Type"))
}

// IsGRPC reports whether a Content-Type is that of gRPC, which requires HTTP/2: application/grpc, alone
// or followed by "+" or ";". gRPC-Web has a media type that begins alike, and is plain HTTP.
func IsGRPC(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return mediaType == "application/grpc" || strings.HasPrefix(mediaType, "application/grpc+")
}

// end ends the guard's work. net/http sends the last part of the answer afterwards, and has
// progressWait for it.
func (st *stream) end() {
	st.conn.mu.Lock()
	delete(st.conn.streams, st)
	st.conn.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ended = true
	_ = st.control.SetWriteDeadline(time.Now().Add(progressWait)) // HTTP/2 of net/http has it, and http3
}

// stalled returns why the request must end at now, or "".
func (st *stream) stalled(now int64) Reason {
	switch {
	case st.in.stalled(now, progressWait):
		return Body
	case st.out.stalled(now, progressWait):
		return Answer
	}
	return ""
}

// cut ends the request, if it is still stalled; the others of its connection go on.
func (st *stream) cut(now int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended {
		return // the controller is no longer valid
	}
	past := time.Now().Add(-time.Second)
	switch why := st.stalled(now); why {
	case Body:
		st.slow.Store(true)
		_ = st.control.SetReadDeadline(past) // HTTP/2 of net/http has it, and http3
		st.conn.guard.onCut(why)
	case Answer:
		_ = st.control.SetWriteDeadline(past) // as above
		st.conn.guard.onCut(why)
	}
}

// streamBody is a request body of HTTP/2 or 3.
type streamBody struct {
	io.ReadCloser
	st *stream
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.st.in.during(b.st.conn, p, b.ReadCloser.Read)
	if err != nil && b.st.slow.Load() {
		err = ErrSlow
	}
	return n, err
}

// streamWriter writes an answer of HTTP/2 or 3.
type streamWriter struct {
	http.ResponseWriter
	st *stream
}

// Unwrap is for http.ResponseController.
func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements http.ResponseWriter. It writes parts whose progress shows.
func (w *streamWriter) Write(p []byte) (written int, err error) {
	for first := true; first || len(p) > 0 && err == nil; first = false {
		part := p[:min(len(p), progressBytes/2)]
		var n int
		n, err = w.st.out.during(w.st.conn, part, w.ResponseWriter.Write)
		written, p = written+n, p[len(part):]
	}
	return written, err
}

// FlushError is for http.ResponseController.
func (w *streamWriter) FlushError() error {
	_, err := w.st.out.during(w.st.conn, nil, func([]byte) (int, error) { return 0, w.st.control.Flush() })
	return err
}
