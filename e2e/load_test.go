package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// clients is how many connections a load has: half of them HTTP/1.1 with keep-alive, half HTTP/2.
const clients = 8

// load asks for one page until it ends. No request is repeated, except an HTTP/2 one that the server
// has declared unprocessed (RFC 9113 §6.8).
type load struct {
	tls   *tls.Config
	end   context.CancelFunc
	ended atomic.Bool
	all   sync.WaitGroup

	served, refused, failed atomic.Int64
	longest                 atomic.Int64 // time that a request took, in ns

	mu    sync.Mutex
	first error
}

// startLoad asks for https://<name>/ at 127.0.0.1. The page may be any but a server's error.
func startLoad(t *testing.T, config *tls.Config) *load {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	l := &load{tls: config, end: end}
	for i := range clients {
		l.all.Go(func() {
			get := l.overHTTP1()
			if i%2 == 1 {
				get = l.overHTTP2()
			}
			for ctx.Err() == nil {
				begun := time.Now()
				l.count(ctx, get(ctx), time.Since(begun))
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.ended.Store(true)
	l.end()
	l.all.Wait()
}

func (l *load) count(ctx context.Context, err error, took time.Duration) {
	switch {
	case err == nil:
		l.served.Add(1)
		for old := l.longest.Load(); int64(took) > old && !l.longest.CompareAndSwap(old, int64(took)); old = l.longest.Load() {
		}
		return
	case ctx.Err() != nil: // the load has ended
		return
	case errors.Is(err, syscall.ECONNREFUSED):
		l.refused.Add(1)
	default:
		l.failed.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = err
	}
}

// String describes what has happened.
func (l *load) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d served, %d refused, %d failed (%v), the slowest took %s", l.served.Load(), l.refused.Load(), l.failed.Load(),
		l.first, time.Duration(l.longest.Load()).Round(time.Millisecond))
}

// overHTTP1 keeps a connection open until the server announces its end, as net/http's client does,
// but repeats nothing.
func (l *load) overHTTP1() func(context.Context) error {
	var c net.Conn
	var answers *bufio.Reader
	dialer := tls.Dialer{Config: l.tls.Clone()}
	dialer.Config.NextProtos = []string{"http/1.1"}
	exchange := func(ctx context.Context) (last bool, err error) {
		if c == nil {
			if c, err = dialer.DialContext(ctx, "tcp", "127.0.0.1:443"); err != nil {
				c = nil // not an interface with a nil *tls.Conn
				return true, err
			}
			answers = bufio.NewReader(c)
		}
		if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", l.tls.ServerName); err != nil {
			return true, err
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			return true, err
		}
		return res.Close, drain(res)
	}
	return func(ctx context.Context) error {
		last, err := exchange(ctx)
		if (last || err != nil) && c != nil {
			_ = c.Close() // the answer is read, or the error known
			c = nil
		}
		return err
	}
}

func (l *load) overHTTP2() func(context.Context) error {
	transport := &http.Transport{
		TLSClientConfig: l.tls.Clone(), ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:443")
		},
	}
	return func(ctx context.Context) error {
		// well formed
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+l.tls.ServerName+"/", nil)
		res, err := transport.RoundTrip(r)
		if err != nil {
			return err
		}
		return drain(res)
	}
}

// drain reads the answer.
func drain(res *http.Response) error {
	_, err := io.Copy(io.Discard, res.Body)
	if res.StatusCode >= http.StatusInternalServerError {
		err = errors.Join(err, errors.New(res.Status))
	}
	return errors.Join(err, res.Body.Close())
}
