package api

import (
	"context"
	"fmt"
	"time"

	"lodge/gateway"
)

// Milestone is how far a VM must have come before a wait is over.
type Milestone string

// The milestones.
const (
	Userspace Milestone = "userspace" // its own programs run: one can log in
	Service   Milestone = "service"   // and something answers at its URL
)

// probeEvery is the time between two looks for a listener in a guest; the host gets no event when a guest listens.
const probeEvery = 250 * time.Millisecond

// Wait returns when a VM has reached a milestone; the empty one is Userspace.
func (s Session) Wait(ctx context.Context, name string, until Milestone, progress func(gateway.Progress)) (VM, error) {
	m, err := s.vm(verbWait, name)
	if err != nil {
		return VM{}, err
	}
	if until != "" && until != Userspace && until != Service {
		return VM{}, gateway.Invalid("cannot wait for %q", until).WithHint("Wait for userspace or for service.")
	}
	progress = timed(progress)
	if err := s.api.Observer.Wait(ctx, m.ID, progress); err != nil {
		return VM{}, err
	}
	if until == Service {
		if err := s.awaitService(ctx, m.ID, progress); err != nil {
			return VM{}, err
		}
	}
	return s.changed(ctx, m.ID)
}

// awaitService returns when something answers at the VM's own name.
func (s Session) awaitService(ctx context.Context, id gateway.ID, progress func(gateway.Progress)) error {
	progress(gateway.Progress{Phase: string(Service), Text: "waiting for something to listen"})
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		m, ok := s.api.Directory.ByID(id)
		if !ok || m.Desired != gateway.Running {
			return gateway.Errorf(gateway.KindConflict, "the VM was stopped or removed meanwhile").WithHint("List the VMs: lodge ls")
		}
		if port, ok := s.api.Web.Probe(ctx, m); ok {
			progress(gateway.Progress{Phase: string(Service), Text: fmt.Sprintf("port %d answers", port)})
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
