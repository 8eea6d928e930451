package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"lodge/gateway"
)

// Limits on starts by mail, which strangers send.
const (
	mailWakePause = 10 * time.Second // between two starts of a VM
	maxMailWakes  = 4                // starts under way
	mailWakeTime  = 2 * time.Minute  // for a start
)

// wakeFunc is vmhost.Host.Wake.
type wakeFunc func(ctx context.Context, id gateway.ID, may func(gateway.VM) bool) error

// mailWaker starts stopped VMs when they get mail, if their settings have that. A message that arrives
// during the pause after a start is not lost: the next start waits. Mail that waited already starts
// nothing: a VM that was started and stopped since a message came stays stopped, as does one after a
// restart of the daemon.
type mailWaker struct {
	directory *gateway.Directory
	wake      wakeFunc
	log       *slog.Logger
	starts    chan struct{} // one for each start under way

	base   context.Context // of all starts; ends with shutdown
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	due    map[gateway.ID]gateway.VM // VMs whose start waits, as they were at their last message
	last   map[gateway.ID]time.Time  // start by mail, within mailWakePause
}

func newMailWaker(directory *gateway.Directory, wake wakeFunc, log *slog.Logger) *mailWaker {
	k := &mailWaker{
		directory: directory, wake: wake, log: log, starts: make(chan struct{}, maxMailWakes),
		due: map[gateway.ID]gateway.VM{}, last: map[gateway.ID]time.Time{},
	}
	k.base, k.cancel = context.WithCancel(context.Background())
	return k
}

// shutdown ends the starts that wait, and those under way. Nothing starts after it.
func (k *mailWaker) shutdown(context.Context) error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.ended.Wait()
	return nil
}

// arrived is called when a VM has got a message. It returns at once.
func (k *mailWaker) arrived(id gateway.ID) {
	m, ok := k.directory.ByID(id)
	if !ok || m.Desired != gateway.Stopped || !m.Mail.Wake {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	_, waits := k.due[id]
	k.due[id] = m
	if !waits {
		pause := max(0, mailWakePause-time.Since(k.last[id]))
		k.ended.Go(func() { k.start(id, pause) })
	}
}

// start starts a VM after a pause, when fewer than maxMailWakes start.
func (k *mailWaker) start(id gateway.ID, pause time.Duration) {
	if !k.wait(pause) {
		return
	}
	select {
	case k.starts <- struct{}{}:
		defer func() { <-k.starts }()
	case <-k.base.Done():
		return
	}
	m, ok := k.begin(id)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(k.base, mailWakeTime)
	defer cancel()
	log := k.log.With(gateway.LogVM(m.Identity))
	if err := k.wake(ctx, id, func(now gateway.VM) bool { return wakes(m, now) }); err != nil {
		log.Warn("VM was not woken", "err", err)
		return
	}
	log.Info("VM was woken by mail")
}

// wait returns after a pause; false if nothing starts any more.
func (k *mailWaker) wait(pause time.Duration) bool {
	if pause == 0 {
		return k.base.Err() == nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-k.base.Done():
		return false
	}
}

// begin returns the VM as it was at its last message, and records a start of it, if it is stopped since
// then. A message from now on is for the next start.
func (k *mailWaker) begin(id gateway.ID) (gateway.VM, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.due[id]
	delete(k.due, id)
	now, ok := k.directory.ByID(id)
	if !ok || now.Desired != gateway.Stopped || !wakes(m, now) {
		return m, false
	}
	for other, at := range k.last {
		if time.Since(at) >= mailWakePause {
			delete(k.last, other)
		}
	}
	k.last[id] = time.Now()
	return m, true
}

// wakes reports whether a message that came when a VM was m may start it now: each start of a VM has a
// number, so that it is seen if the VM was started and stopped in between.
func wakes(m, now gateway.VM) bool { return now.Mail.Wake && now.Incarnation == m.Incarnation }
