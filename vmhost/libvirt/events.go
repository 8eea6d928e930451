package libvirt

import (
	"context"
	"fmt"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
)

// Reconnecting starts after minBackoff and doubles up to maxBackoff.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// settleTime is how long a libvirtd that has just started may report a domain as running although
// its QEMU has died. It sends no event when it notices.
const settleTime = 3 * time.Second

// Changes delivers hints to look again: a domain has changed, or the connection for events is new
// and events may have been missed. Pending hints are merged into one.
func (c *Client) Changes() <-chan struct{} { return c.changes }

// Run listens for events until ctx ends, reconnecting with back-off, and turns them into Changes.
// It returns nil.
func (c *Client) Run(ctx context.Context) error {
	backoff, reachable := minBackoff, true
	for ctx.Err() == nil {
		connected, err := c.listen(ctx)
		if connected {
			backoff, reachable = minBackoff, true
		}
		if reachable && ctx.Err() == nil {
			c.log.WarnContext(ctx, "connection to libvirtd was lost", "err", err)
			reachable = false // logged once per loss, not once per attempt
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// listen passes on hints until its connection or ctx ends. connected reports whether it has
// subscribed.
//
// It never cancels the subscription: with an event under way that would deadlock the RPC library
// (its router holds the lock that cancelling needs). Closing the connection ends the subscription
// as well, and the channel is read to its end.
func (c *Client) listen(ctx context.Context) (connected bool, err error) {
	begin, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := dial(begin, c.socket)
	if err != nil {
		return false, err
	}
	defer conn.close()
	stop := context.AfterFunc(begin, conn.close) // also ends the subscribe call to a libvirtd that hangs
	defer stop()
	events, err := conn.rpc.LifecycleEvents(context.WithoutCancel(ctx))
	if err != nil {
		return false, fmt.Errorf("subscribe to events: %w", err)
	}
	stop()
	defer context.AfterFunc(ctx, conn.close)()
	c.log.InfoContext(ctx, "connection to libvirtd was made")
	c.changed()
	settled := time.AfterFunc(settleTime, c.changed)
	defer settled.Stop()
	for range events {
		c.changed()
	}
	return true, fmt.Errorf("read events: %w", rpc.ErrInterrupted)
}

func (c *Client) changed() {
	select {
	case c.changes <- struct{}{}:
	default: // a hint is pending already
	}
}
