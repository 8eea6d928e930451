package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// flowLife is how long a flow lasts after the last datagram of its client. Those of the VM do not
// extend it: it cannot send to a client for long that sends nothing.
//
// UDP proves no address, and a reply proves none either: whoever forges an address can forge another
// datagram from it. The limits before a reply bound what a single datagram causes. What more of them
// cause is up to the VM's program, as on any host with a UDP port.
type flowLife struct {
	first   time.Duration // before the client has replied to the VM
	replied time.Duration // after that
	early   int           // bytes that the VM may send before it
}

// RFC 4787 §4.3: a mapping lasts two minutes at least.
func defaultFlowLife() flowLife {
	return flowLife{first: 30 * time.Second, replied: 2 * time.Minute, early: 64 << 10}
}

// maxDatagram is above the largest UDP payload.
const maxDatagram = 64 << 10

// table has the flows of one socket. The limits of the forward bound it.
type table struct {
	s    *Server
	p    *port
	out  *net.UDPConn
	pool sync.Pool // of *[maxDatagram]byte

	mu    sync.Mutex
	flows map[netip.AddrPort]*flow // by the client's address and port
}

// flow is one client's, with a socket on the VM's tap that takes datagrams from the VM's port only.
type flow struct {
	client netip.AddrPort
	guest  *net.UDPConn
	done   func() // gives up its places in the limits

	// guarded by table.mu
	seen     time.Time // the client's last datagram
	answered int       // bytes from the VM, until replied
	replied  bool      // the client sent after the VM had
}

func (s *Server) newTable(p *port, out *net.UDPConn) *table {
	return &table{
		s: s, p: p, out: out, flows: map[netip.AddrPort]*flow{},
		pool: sync.Pool{New: func() any { return new([maxDatagram]byte) }},
	}
}

// receive passes on what clients send, until the socket is closed.
func (t *table) receive() {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := t.out.ReadFromUDPAddrPort(buf)
		if over(err) {
			return
		}
		if err != nil || from.Port() == 0 { // no answer could reach port 0
			continue
		}
		if f := t.flow(from); f != nil {
			_, _ = f.guest.Write(buf[:n]) // UDP may lose datagrams, as when the VM refuses them
		}
	}
}

// flow returns the flow of a client, a new one if need be; nil above the limits and for a VM that is
// off.
func (t *table) flow(from netip.AddrPort) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f, ok := t.flows[from]; ok {
		f.seen = time.Now()
		f.replied = f.replied || f.answered > 0
		return f
	}
	vm, ok := t.s.target(t.p)
	if !ok {
		return nil
	}
	ctx, done, ok := t.s.begin(t.p, vm, clientOf(from), t.s.flows)
	if !ok && t.evict(clientOf(from)) {
		ctx, done, ok = t.s.begin(t.p, vm, clientOf(from), t.s.flows)
	}
	if !ok {
		return nil
	}
	c, err := t.s.Dial(ctx, "udp4", vm, t.p.VMPort)
	if err != nil {
		done()
		t.s.log(t.p).Debug("forwarded datagram was dropped", "err", err)
		return nil
	}
	f := &flow{client: from, guest: c.(*net.UDPConn), done: done, seen: time.Now()} //nolint:forcetypeassert // of the network udp4
	t.flows[from] = f
	t.s.serving.Go(func() { t.serve(ctx, f) })
	return f
}

// evict makes room for a client that has no flow: it ends the flow whose client has sent nothing for
// the longest time, one without a reply first. So datagrams with forged addresses keep no client
// out for long, and a client with many flows costs the others none. The caller holds mu.
func (t *table) evict(from client) bool {
	if held, _ := t.p.clients.Held(from); held > 0 {
		return false
	}
	var oldest *flow
	for _, f := range t.flows {
		if oldest == nil || f.replied != oldest.replied && oldest.replied || f.replied == oldest.replied && f.seen.Before(oldest.seen) {
			oldest = f
		}
	}
	if oldest == nil {
		return false
	}
	t.end(oldest)
	return true
}

// end ends a flow. A second time does nothing. The caller holds mu.
func (t *table) end(f *flow) {
	f.done()
	_ = f.guest.Close() // it ends serve, which is the purpose
	if t.flows[f.client] == f {
		delete(t.flows, f.client)
	}
}

// serve passes on what the VM sends, until the flow ends.
func (t *table) serve(ctx context.Context, f *flow) {
	defer context.AfterFunc(ctx, func() { _ = f.guest.Close() })() // it ends answer
	for t.wait(f) {
		if err := t.answer(f); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			break // closed, or the VM has nothing at its port
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(f)
}

// wait sets the time at which the flow may end. It is false when that has passed.
func (t *table) wait(f *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	until := f.seen.Add(t.s.life.first)
	if f.replied {
		until = f.seen.Add(t.s.life.replied)
	}
	if !time.Now().Before(until) {
		return false
	}
	return f.guest.SetReadDeadline(until) == nil
}

// answer sends one datagram of the VM to the client.
func (t *table) answer(f *flow) error {
	buf, n, err := t.read(f.guest)
	if err != nil {
		return err
	}
	defer t.pool.Put(buf)
	t.mu.Lock()
	drop := !f.replied && f.answered+n > t.s.life.early
	if !drop {
		f.answered += max(n, 1) // an empty datagram is an answer, too
	}
	t.mu.Unlock()
	if !drop {
		_, _ = t.out.WriteToUDPAddrPort(buf[:n], f.client) // UDP may lose datagrams
	}
	return nil
}

// read waits for a datagram. It takes a buffer only when there is one: a thousand flows that wait
// need none.
func (t *table) read(c *net.UDPConn) (buf *[maxDatagram]byte, n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		buf = t.pool.Get().(*[maxDatagram]byte)
		for readErr = syscall.EINTR; errors.Is(readErr, syscall.EINTR); {
			n, readErr = syscall.Read(int(fd), buf[:]) //nolint:gosec // a descriptor fits
		}
		if readErr != nil {
			t.pool.Put(buf)
		}
		return !errors.Is(readErr, syscall.EAGAIN)
	})
	if err == nil {
		err = readErr
	}
	return buf, n, err
}
