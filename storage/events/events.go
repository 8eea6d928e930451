// Package events posts the events of buckets into their VMs.
//
// An event is in the store from the commit of its write until the VM has answered 2xx. It survives
// restarts of the daemon, and waits while the VM is off. A VM with waiting events has one worker,
// which posts them one at a time, in order. After a failure, a target is not tried again before a
// pause, which doubles each time; its events wait, and the worker continues with other targets. So
// a VM delays only its own events, and the events of one rule about one object stay in order.
//
// This package connects to a VM only through its tap, follows no redirects, and drops an event only
// if its rule was removed, or its record or that of its bucket is damaged.
package events

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/storage/store"
)

// Queue is what the store has of events.
type Queue interface {
	Pages
	EventVMs() ([]gateway.ID, error)
	EventRules(vm gateway.ID) ([]store.RuleOf, error)
	Bucket(vm gateway.ID, name string) (store.Bucket, error)
}

// Pages are the events of each VM that wait.
type Pages interface {
	Events(vm gateway.ID, after uint64, most int) (store.EventPage, error)
	Current(page store.EventPage) bool
	EndEvents(page store.EventPage, numbers ...uint64) error
	DropEvents(page store.EventPage, numbers ...uint64) error
}

// Times are the limits of attempts.
type Times struct {
	Step     time.Duration // that a VM may take to answer
	RetryMin time.Duration // the first pause of a target that has failed; it doubles
	RetryMax time.Duration
}

// DefaultTimes are those of the daemon.
func DefaultTimes() Times {
	return Times{Step: 10 * time.Second, RetryMin: time.Second, RetryMax: 5 * time.Minute}
}

// Config is what New needs.
type Config struct {
	Queue     Queue
	Directory *gateway.Directory
	Target    func(b *store.Bucket, rule string) (target string, ok bool) // where the events of a rule go now
	Dial      func(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error)
	Domain    string // of the VMs' names, as the Host of a request has it
	Times     Times
	Logger    *slog.Logger
}

// Deliverer posts the events of all VMs.
type Deliverer struct {
	config Config

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before it
	workers map[gateway.ID]*worker
	running sync.WaitGroup
}

// New returns a Deliverer that does nothing before Run.
func New(config Config) *Deliverer {
	d := &Deliverer{config: config, workers: map[gateway.ID]*worker{}}
	config.Directory.Watch(d.changed)
	return d
}

// Run delivers until ctx is done.
func (d *Deliverer) Run(ctx context.Context) error {
	d.mu.Lock()
	d.ctx = ctx //nolint:containedctx,fatcontext // workers begin at any time until it ends
	d.mu.Unlock()
	d.wakeAll(ctx)
	<-ctx.Done()
	d.mu.Lock()
	d.ctx = nil
	d.mu.Unlock()
	d.running.Wait()
	return nil
}

// wakeAll wakes all VMs that have events waiting, as soon as they can be read.
func (d *Deliverer) wakeAll(ctx context.Context) {
	pause := d.config.Times.RetryMin
	for {
		waiting, err := d.config.Queue.EventVMs()
		if err == nil {
			for _, vm := range waiting {
				d.Wake(vm)
			}
			return
		}
		d.config.Logger.Error("events of buckets that wait cannot be read", slog.Any("err", err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, d.config.Times.RetryMax)
	}
}

// Wake delivers a VM's events soon. It does not block, and reads nothing.
func (d *Deliverer) Wake(vm gateway.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.workers[vm]; w != nil {
		w.wakeUp()
		return
	}
	if d.ctx == nil || d.ctx.Err() != nil {
		return // Run looks for all that wait when it begins
	}
	w := newWorker(d.config, vm)
	d.workers[vm] = w
	ctx := d.ctx
	d.running.Go(func() { w.run(ctx, d.leave) })
}

// changed makes all events of a VM due that is started, or whose record changes otherwise.
func (d *Deliverer) changed(_, now gateway.VM) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.workers[now.ID]; w != nil {
		w.hurry.Store(true)
		w.wakeUp()
	}
}

// leave ends a worker that has nothing to do, unless it was woken meanwhile.
func (d *Deliverer) leave(w *worker) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-w.wake:
		return false
	default:
	}
	delete(d.workers, w.vm)
	return true
}
