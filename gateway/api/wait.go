package api

import (
	"context"
	"fmt"
	"time"

	"lodge/gateway"
)

// Condition is what a wait waits for.
type Condition string

// The conditions.
const (
	SSH  Condition = "ssh"  // the guest's sshd answers
	HTTP Condition = "http" // and something answers at the VM's URL
)

// probeEvery is the time between two looks for a listener in a guest; the host gets no event when a guest listens.
const probeEvery = 250 * time.Millisecond

// Wait returns when a VM has met a condition; the empty one is SSH. KindDenied: the caller may no longer wait for it.
func (s Session) Wait(ctx context.Context, name string, until Condition, progress func(gateway.Progress)) (VM, error) {
	m, err := s.vm(verbWait, name)
	if err != nil {
		return VM{}, err
	}
	if until != "" && until != SSH && until != HTTP {
		return VM{}, gateway.Invalid("cannot wait for %q", until).WithHint("Wait for ssh or for http.")
	}
	progress = timed(progress)
	ctx, end := s.while(ctx, verbWait, m.ID)
	defer end()
	if err := s.api.Observer.Wait(ctx, m.ID, progress); err != nil {
		return VM{}, orDenied(ctx, err)
	}
	if until == HTTP {
		if err := s.awaitHTTP(ctx, m.ID, progress); err != nil {
			return VM{}, orDenied(ctx, err)
		}
	}
	return s.changed(ctx, m.ID)
}

// awaitHTTP returns when something answers at the VM's own name.
func (s Session) awaitHTTP(ctx context.Context, id gateway.ID, progress func(gateway.Progress)) error {
	progress(gateway.Progress{Phase: string(HTTP), Text: "waiting for something to listen"})
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		m, ok := s.api.Directory.ByID(id)
		if !ok || m.Desired != gateway.Running {
			return gateway.Errorf(gateway.KindConflict, "the VM was stopped or removed meanwhile").WithHint("List the VMs: lodge ls")
		}
		if port, ok := s.api.Ports.Probe(ctx, m); ok {
			progress(gateway.Progress{Phase: string(HTTP), Text: fmt.Sprintf("port %d answers", port)})
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
