package conns

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	progressBytes = 64 << 10         // this much must move
	progressWait  = 30 * time.Second // in this time of waiting for the client
	handshakeWait = 3 * time.Second  // of waiting for the client, without the host's own work
	vmWait        = 30 * time.Second // the same for a VM, which may be slow when many are busy
	watchEvery    = 500 * time.Millisecond
)

// flow is one direction of a connection or a request. Only the time inside a call counts: a client
// that has nothing to send or to read for an hour has not waited at all. The zero flow is ready.
type flow struct {
	since  atomic.Int64 // when the call that is under way began; 0: none is
	waited atomic.Int64 // in earlier calls, since the last progress
	moved  atomic.Int64 // bytes since the last progress
}

// during calls move, which reads or writes p for c.
func (f *flow) during(c *Conn, p []byte, move func([]byte) (int, error)) (int, error) {
	f.since.Store(c.guard.now())
	n, err := move(p)
	now := c.guard.now()
	f.waited.Add(now - f.since.Swap(0))
	if f.moved.Add(int64(n)) >= progressBytes {
		f.reset()
		c.last.Store(now)
	}
	return n, err
}

// reset is progress.
func (f *flow) reset() {
	f.waited.Store(0)
	f.moved.Store(0)
}

// stalled reports whether a call is under way and has waited for too long.
func (f *flow) stalled(now int64, limit time.Duration) bool {
	since := f.since.Load()
	return since != 0 && f.waited.Load()+now-since > int64(limit)
}

// watch looks for what makes no progress until ctx ends.
func (g *Guard) watch(ctx context.Context) {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			g.sweep(g.now())
		case <-ctx.Done():
			return
		}
	}
}

// sweep cuts all that has made no progress at now.
func (g *Guard) sweep(now int64) {
	cut := map[*Conn]Reason{}
	var streams []*stream
	g.mu.Lock()
	for c := range g.open {
		if why := c.stalled(now); why != "" {
			cut[c] = why
			continue
		}
		c.mu.Lock()
		for st := range c.streams {
			if st.stalled(now) != "" {
				streams = append(streams, st)
			}
		}
		c.mu.Unlock()
	}
	g.mu.Unlock()
	for c, why := range cut {
		c.cut(why)
	}
	for _, st := range streams {
		st.cut(now)
	}
}
