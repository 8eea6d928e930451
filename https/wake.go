package https

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/https/access"
	"lodge/https/names"
	"lodge/https/pages"
)

// Limits on requests that wait for a VM to start.
const (
	maxHeldPerVM    = 64
	maxHeld         = 1024             // for all VMs
	maxWakesPerPeer = 2                // starts under way
	maxWakes        = 8                // of all peers
	wakePause       = 10 * time.Second // between two starts of a VM by requests
	wakeTime        = 2 * time.Minute  // for a start, until a port answers
	wakePoll        = 200 * time.Millisecond
	holdTime        = 50 * time.Second // proxies and load balancers in front often wait 60 s
)

// Reasons why a held request is not passed on.
var (
	errAsleep   = errors.New("the VM is stopped")
	errStarting = errors.New("the VM is starting")
)

// waker starts stopped VMs for requests, and holds the requests until the port that they are for
// answers. However many wait, a VM is started once.
type waker struct {
	wake     func(ctx context.Context, id gateway.ID) error // Config.Wake; nil: no VM is woken
	answers  func(ctx context.Context, vm gateway.VM, port uint16) bool
	dir      *gateway.Directory
	log      *slog.Logger
	holdTime time.Duration

	held   *limit.Limit[gateway.ID]
	starts *limit.Limit[wakeSource]
	// of waits for one port, and of starts of one VM
	waits, starting singleflight.Group

	base   context.Context // of all waits, which outlive their requests; ends with stop
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	wakes  map[gateway.ID]*wakeUp   // VMs that start
	any    atomic.Bool              // whether wakes has any: most requests need no lock
	last   map[gateway.ID]time.Time // start by a request, for wakePause
}

// wakeUp is a VM that starts, from the first request until one of its ports answers.
type wakeUp struct{ waits int }

// wakeSource is what shares maxWakes: a peer. Through loopback each request may be another client's,
// so there only the VM counts.
type wakeSource struct {
	peer gateway.Peer
	vm   gateway.ID
}

func newWaker(cfg Config, answers func(context.Context, gateway.VM, uint16) bool) *waker {
	if cfg.HoldTime == 0 {
		cfg.HoldTime = holdTime
	}
	k := &waker{
		wake: cfg.Wake, answers: answers, dir: cfg.Directory, log: cfg.Logger, holdTime: cfg.HoldTime,
		held: limit.New[gateway.ID](maxHeldPerVM, maxHeld), starts: limit.New[wakeSource](maxWakesPerPeer, maxWakes),
		wakes: map[gateway.ID]*wakeUp{}, last: map[gateway.ID]time.Time{},
	}
	k.base, k.cancel = context.WithCancel(context.Background())
	return k
}

// stop ends all waits. Held requests are answered.
func (k *waker) stop() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.ended.Wait()
}

// holds reports whether a request for vm waits: vm is stopped and may be woken, or is just starting.
func (k *waker) holds(vm gateway.VM) bool {
	switch {
	case vm.Desired == gateway.Stopped && vm.WakeOnRequest && k.wake != nil:
		return true
	case !k.any.Load():
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wakes[vm.ID] != nil
}

// hold returns nil once the port of a VM answers, which it starts if it is stopped. It ends with ctx,
// or after holdTime with errStarting.
func (k *waker) hold(ctx context.Context, vm gateway.ID, port uint16, from gateway.Peer) error {
	leave, ok := k.held.Enter(vm)
	if !ok {
		return errStarting
	}
	defer leave()
	timer := time.NewTimer(k.holdTime)
	defer timer.Stop()
	result := k.waits.DoChan(fmt.Sprintf("%s:%d", vm, port), func() (any, error) {
		return nil, k.await(vm, port, from)
	})
	select {
	case r := <-result:
		return r.Err
	case <-timer.C:
		return errStarting
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await starts the VM, unless it runs, and returns nil once its port answers.
func (k *waker) await(vm gateway.ID, port uint16, from gateway.Peer) error {
	w, ok := k.begin(vm)
	if !ok {
		return errStarting
	}
	defer k.end(vm, w)
	ctx, cancel := context.WithTimeout(k.base, wakeTime)
	defer cancel()
	_, err, _ := k.starting.Do(vm.String(), func() (any, error) { return nil, k.start(ctx, vm, from) })
	if err != nil {
		return err
	}
	poll := time.NewTicker(wakePoll)
	defer poll.Stop()
	for {
		m, ok := k.dir.ByID(vm)
		switch {
		case !ok || m.Desired != gateway.Running:
			return errAsleep
		case k.answers(ctx, m, port):
			k.up(vm, w)
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return errStarting
		}
	}
}

// start starts a stopped VM. It calls wake only if the VM's record allows that now.
func (k *waker) start(ctx context.Context, vm gateway.ID, from gateway.Peer) error {
	m, ok := k.dir.ByID(vm)
	switch {
	case ok && m.Desired == gateway.Running:
		return nil
	case !ok || m.Desired != gateway.Stopped || !m.WakeOnRequest || k.wake == nil:
		return errAsleep
	}
	source := wakeSource{peer: from}
	if from.Loopback() {
		source = wakeSource{vm: vm}
	}
	leave, ok := k.starts.Enter(source)
	if !ok {
		return errStarting
	}
	defer leave()
	if !k.due(vm) {
		return errAsleep
	}
	log := k.log.With(gateway.LogVM(m.Identity))
	if err := k.wake(ctx, vm); err != nil {
		log.Warn("VM was not woken", "err", err)
		return errAsleep
	}
	log.Info("VM was woken by a request")
	return nil
}

// due reports whether wakePause has passed since the VM's last start, and if so records a new one.
func (k *waker) due(vm gateway.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for id, at := range k.last {
		if now.Sub(at) >= wakePause {
			delete(k.last, id)
		}
	}
	if _, recent := k.last[vm]; recent {
		return false
	}
	k.last[vm] = now
	return true
}

// begin records that a request waits for a VM to start. It is false after stop.
func (k *waker) begin(vm gateway.ID) (*wakeUp, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, false
	}
	k.ended.Add(1)
	w := k.wakes[vm]
	if w == nil {
		w = &wakeUp{}
		k.wakes[vm] = w
		k.any.Store(true)
	}
	w.waits++
	return w, true
}

// end removes a wait, and the wakeUp with its last wait.
func (k *waker) end(vm gateway.ID, w *wakeUp) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.waits--; w.waits == 0 {
		k.remove(vm, w)
	}
	k.ended.Done()
}

// up removes a wakeUp before its last wait: a VM that answers at one port serves requests for all.
func (k *waker) up(vm gateway.ID, w *wakeUp) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remove(vm, w)
}

// remove removes a wakeUp, if it is still the VM's. The caller holds k.mu.
func (k *waker) remove(vm gateway.ID, w *wakeUp) {
	if k.wakes[vm] == w {
		delete(k.wakes, vm)
		k.any.Store(len(k.wakes) > 0)
	}
}

// awaken holds a request until its VM runs, and returns the route as it is then. It is false once the
// request is answered. A request whose body was not read yet is held even if its client has gone
// (net/http looks for the end of a connection only behind the body), for holdTime at most.
func (s *Server) awaken(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor) (names.Route, bool) {
	err := s.waker.hold(r.Context(), rt.VM.ID, rt.Port, unitOf(r, who).Peer)
	s.closeIfDraining(w.Header(), r)
	again, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
	switch {
	case r.Context().Err() != nil:
		w.WriteHeader(http.StatusBadGateway) // the client has gone
	case !ok || again.VM.ID != rt.VM.ID: // removed meanwhile
		s.pages.Render(w, r, pages.Misdirected())
	case errors.Is(err, errStarting):
		s.pages.Render(w, r, pages.Starting(rt))
	default: // it runs, or the caller shows that it does not
		return again, true
	}
	return again, false
}

// answers reports whether a port of a VM accepts connections.
func (s *Server) answers(ctx context.Context, vm gateway.VM, port uint16) bool {
	if port == gateway.DefaultPort {
		_, err := s.proxy.Find(ctx, vm)
		return err == nil
	}
	_, err := s.proxy.Listening(ctx, vm, []uint16{port})
	return err == nil
}
