package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// wakeRig has a mailWaker whose starts are recorded, and change the Directory as those of vmhost do.
type wakeRig struct {
	*mailWaker
	t      *testing.T
	log    *gatewaytest.Log
	starts chan gateway.ID // those that were tried
	fail   error
	last   time.Duration // of each start
}

func newWakeRig(t *testing.T, vms ...gateway.VM) *wakeRig {
	t.Helper()
	r := &wakeRig{t: t, log: new(gatewaytest.Log), starts: make(chan gateway.ID, 100)}
	directory := gatewaytest.NewDirectory(t, new(gatewaytest.Records), vms...)
	r.mailWaker = newMailWaker(directory, func(ctx context.Context, id gateway.ID, may func(gateway.VM) bool) error {
		r.starts <- id
		if r.fail != nil {
			return r.fail
		}
		pass(r.last)
		_, err := directory.Update(context.WithoutCancel(ctx), id, func(m *gateway.VM) error {
			if !may(*m) {
				return errors.New("not allowed")
			}
			m.Desired, m.Incarnation = gateway.Running, m.Incarnation+1
			return nil
		})
		return err
	}, r.log.Logger())
	t.Cleanup(func() { gatewaytest.Must(t, r.shutdown(t.Context())) })
	return r
}

func (r *wakeRig) change(vm gateway.VM, change func(m *gateway.VM)) {
	r.t.Helper()
	_, err := r.directory.Update(r.t.Context(), vm.ID, func(m *gateway.VM) error { change(m); return nil })
	gatewaytest.Must(r.t, err)
}

func (r *wakeRig) stop(vm gateway.VM) {
	r.t.Helper()
	r.change(vm, func(m *gateway.VM) { m.Desired = gateway.Stopped })
}

// tried waits until nothing moves, and checks how many starts there were since the last time.
func (r *wakeRig) tried(when string, want int) {
	r.t.Helper()
	synctest.Wait()
	for range want {
		select {
		case <-r.starts:
		default:
			r.t.Errorf("%s: fewer than %d starts", when, want)
		}
	}
	if len(r.starts) > 0 {
		r.t.Errorf("%s: %d starts too many", when, len(r.starts))
	}
}

// pass lets time pass in the bubble.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // no time passes in a bubble

func sleeper(name string, wake bool) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Stopped, Mail: gateway.MailSettings{Wake: wake}}
}

// Mail starts a stopped VM that is set so, once, and no other VM.
func TestMailWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blog, quiet, running := sleeper("blog", true), sleeper("quiet", false), sleeper("running", true)
		running.Desired = gateway.Running
		r := newWakeRig(t, blog, quiet, running)
		r.last = 5 * time.Second
		for range 20 {
			for _, id := range []gateway.ID{blog.ID, quiet.ID, running.ID, gateway.NewID(), gateway.Postmaster().ID} {
				r.arrived(id)
			}
		}
		r.tried("20 messages for each", 1)
		pass(r.last)
		synctest.Wait()
		if r.log.Count("VM was woken by mail") != 1 || r.log.Count("vm=blog") != 1 {
			t.Errorf("log: %s", r.log)
		}
		r.arrived(blog.ID)
		pass(time.Hour)
		r.tried("while it runs", 0)
	})
}

// A VM that was stopped stays stopped until it gets new mail, and its starts have a pause between them.
func TestMailThatWaitsWakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blog := sleeper("blog", true)
		r := newWakeRig(t, blog)
		r.arrived(blog.ID)
		r.tried("first mail", 1)
		r.stop(blog)
		pass(time.Hour)
		r.tried("stopped by its owner", 0)
		r.arrived(blog.ID)
		r.tried("new mail", 1)
		r.stop(blog)
		r.arrived(blog.ID)
		pass(mailWakePause - time.Second)
		r.tried("new mail in the pause", 0)
		pass(time.Second)
		r.tried("after the pause", 1)

		r.stop(blog)
		r.arrived(blog.ID) // it waits for the end of the pause
		r.change(blog, func(m *gateway.VM) { m.Desired, m.Incarnation = gateway.Running, m.Incarnation+1 })
		r.stop(blog)
		pass(time.Hour)
		r.tried("started and stopped by its owner in the pause", 0)

		r.arrived(blog.ID)
		r.tried("after that", 1)
		r.stop(blog)
		r.arrived(blog.ID)
		r.change(blog, func(m *gateway.VM) { m.Desired, m.Incarnation = gateway.Running, m.Incarnation+1 })
		r.stop(blog)
		r.arrived(blog.ID)
		pass(mailWakePause)
		r.tried("the same, and new mail", 1)

		r.stop(blog)
		r.arrived(blog.ID)
		r.change(blog, func(m *gateway.VM) { m.Mail.Wake = false })
		pass(time.Hour)
		r.tried("no longer wanted", 0)
	})
}

// A start that fails is tried again with the next mail, after the pause; shutdown ends what waits.
func TestMailWakeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blog := sleeper("blog", true)
		r := newWakeRig(t, blog)
		r.fail = errors.New("no memory")
		r.arrived(blog.ID)
		r.tried("first", 1)
		r.arrived(blog.ID)
		r.tried("in the pause", 0)
		pass(mailWakePause)
		r.tried("after the pause", 1)
		if r.log.Count("VM was not woken") != 2 {
			t.Errorf("log: %s", r.log)
		}
		r.arrived(blog.ID)
		gatewaytest.Must(t, r.shutdown(t.Context()))
		r.arrived(blog.ID)
		pass(time.Hour)
		r.tried("after the shutdown", 0)
	})
}

// Mail for many VMs starts a few at a time, and in the end all.
func TestMailWakesAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var vms []gateway.VM
		for i := range 3 * maxMailWakes {
			vms = append(vms, sleeper("vm"+string(rune('a'+i)), true))
		}
		r := newWakeRig(t, vms...)
		r.last = time.Second
		for _, vm := range vms {
			r.arrived(vm.ID)
		}
		for range 3 {
			r.tried("at a time", maxMailWakes)
			pass(r.last)
		}
		r.tried("in the end", 0)
		for _, m := range r.directory.All() {
			if m.Desired != gateway.Running {
				t.Errorf("%s is %s", m.Name, m.Desired)
			}
		}
	})
}
