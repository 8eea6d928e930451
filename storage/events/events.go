// Package events posts the events of buckets into their VMs.
//
// An event waits in the store from the commit of its write until the VM has answered 2xx, over restarts of the daemon
// and while the VM is off. Each VM that has events waiting has one worker, which posts them one by one in their order.
// A target that fails is left alone for a pause that grows; its events wait, and those for other targets of the VM go
// on. So a VM holds up nobody but itself, and the events of one configuration about one object stay in order.
//
// This package reaches a VM by its tap alone, never follows what a VM answers, and never drops an event but of a
// configuration that is gone.
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
	EventVMs() ([]gateway.ID, error)
	Events(vm gateway.ID, after uint64, most int) (store.EventPage, error)
	Current(page store.EventPage) bool
	EndEvents(page store.EventPage, numbers ...uint64) error
	DropEvents(page store.EventPage, numbers ...uint64) error
	Bucket(vm gateway.ID, name string) (store.Bucket, error)
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
	waiting, err := d.config.Queue.EventVMs()
	for _, vm := range waiting {
		d.Wake(vm)
	}
	<-ctx.Done()
	d.mu.Lock()
	d.ctx = nil
	d.mu.Unlock()
	d.running.Wait()
	return err
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
