// Package libvirt is a client of libvirtd.
//
// The RPC library beneath (go-libvirt) has no deadlines and does not reconnect. Here every call
// takes a context and has a connection to itself. Client.call takes an idle connection or dials
// one, and puts it back when libvirtd has answered. When the answer does not come in time, closing
// the connection ends the call. No other call uses that connection, so a stuck domain never
// disturbs the calls for another. While libvirtd is down, calls fail with KindUnavailable at once;
// the first call after its return works again.
//
// Events come over a separate connection (Client.Run) and are hints only, because they are lost
// whenever the connection is. A change means "look again", never what has happened.
//
// This package never keeps state of domains and never makes decisions. It never sets libvirt's
// autostart, since no VM may run before its identity rules are in place.
package libvirt

import (
	"context"
	"log/slog"
	"sync"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
)

// DefaultSocket is where libvirtd listens on Debian.
const DefaultSocket = "/run/libvirt/libvirt-sock"

// Default time limits, with room for a loaded host. Where libvirtd cannot cache QEMU's capabilities
// it examines QEMU at each start, which takes up to 42 s.
const (
	defaultCallTimeout  = 30 * time.Second
	defaultStartTimeout = 2 * time.Minute
)

// maxIdle is how many connections are kept for the next call.
const maxIdle = 4

// Config has libvirtd's socket and the time limits. Zero values mean the defaults.
type Config struct {
	Socket       string        // path of its unix socket; DefaultSocket
	CallTimeout  time.Duration // for a single call, within its context; 30 s
	StartTimeout time.Duration // for a call that starts a domain; 2 min
	Logger       *slog.Logger
}

// Client makes calls to libvirtd. It is safe for concurrent use.
type Client struct {
	socket       string
	timeout      time.Duration
	startTimeout time.Duration
	log          *slog.Logger
	changes      chan struct{}

	mu   sync.Mutex
	idle []*conn
}

// New returns a client. It dials at the first call, so libvirtd may be absent now.
func New(c Config) *Client {
	if c.Socket == "" {
		c.Socket = DefaultSocket
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCallTimeout
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{
		socket: c.Socket, timeout: c.CallTimeout, startTimeout: c.StartTimeout, log: c.Logger, changes: make(chan struct{}, 1),
	}
}

// Close closes the idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, idle := range c.idle {
		idle.close()
	}
	c.idle = nil
}

// Ping asks libvirtd for its version, such as 9000000 for 9.0.0.
func (c *Client) Ping(ctx context.Context) (version uint64, err error) {
	err = c.call(ctx, "report its version", func(l *rpc.Libvirt) (err error) {
		version, err = l.ConnectGetLibVersion()
		return err
	})
	return version, err
}

// call runs f on a connection that it has to itself. What f captures may be read after call has
// returned.
func (c *Client) call(ctx context.Context, what string, f func(*rpc.Libvirt) error) error {
	return c.callFor(ctx, c.timeout, what, f)
}

func (c *Client) callFor(ctx context.Context, limit time.Duration, what string, f func(*rpc.Libvirt) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := c.take(ctx)
	if err != nil {
		return c.explain(what, err)
	}
	done := make(chan error, 1)
	go func() { done <- f(conn.rpc) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		conn.close() // which ends f
		<-done
		err = context.Cause(ctx)
	}
	c.put(conn, err)
	return c.explain(what, err)
}

// take returns a connection that is alive as far as is known.
func (c *Client) take(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		if len(c.idle) == 0 {
			c.mu.Unlock()
			return dial(ctx, c.socket)
		}
		last := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		c.mu.Unlock()
		if last.alive() {
			return last, nil
		}
		last.close()
	}
}

// put keeps the connection for the next call if libvirtd has replied, with a result or an error;
// else it closes it.
func (c *Client) put(used *conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !used.alive() || !answered(err) || len(c.idle) >= maxIdle {
		used.close()
		return
	}
	c.idle = append(c.idle, used)
}
