package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"lodge/gateway"
)

// foundTime is how long a found port is used before the next search. A port that stops answering is
// removed at once, so this only delays a switch to an earlier port of the list.
const foundTime = 2 * time.Second

// probeTimeout limits the search for a port.
const probeTimeout = time.Second

// finder keeps the ports that VMs' plain names lead to.
type finder struct {
	flight singleflight.Group // concurrent requests share one search
	mu     sync.Mutex
	found  map[gateway.ID]found
}

type found struct {
	port        uint16
	incarnation uint32
	until       time.Time
}

// Find returns the port that the plain name of vm leads to: the first of gateway.WebPorts that
// listens. The error is ErrRefused or ErrNoRoute when none does.
func (p *Proxy) Find(ctx context.Context, vm gateway.VM) (uint16, error) {
	f := &p.finder
	f.mu.Lock()
	have, ok := f.found[vm.ID]
	f.mu.Unlock()
	if ok && have.incarnation == vm.Incarnation && time.Now().Before(have.until) {
		return have.port, nil
	}
	return p.search(ctx, vm)
}

// search is Find without a cached answer. Concurrent calls for a VM share one search.
func (p *Proxy) search(ctx context.Context, vm gateway.VM) (uint16, error) {
	f := &p.finder
	result := f.flight.DoChan(Target{vm, gateway.DefaultPort}.key(), func() (any, error) {
		listening, err := p.Listening(context.WithoutCancel(ctx), vm, gateway.WebPorts())
		if err != nil {
			return uint16(0), err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.found[vm.ID] = found{listening[0], vm.Incarnation, time.Now().Add(foundTime)}
		return listening[0], nil
	})
	select {
	case r := <-result:
		return r.Val.(uint16), r.Err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (f *finder) remove(id gateway.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.found, id)
}

// Listening returns those of ports that listen, in their order. The error is ErrRefused when the VM
// refuses a connection and accepts none, ErrNoRoute when it answers none.
func (p *Proxy) Listening(ctx context.Context, vm gateway.VM, ports []uint16) ([]uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	errs := make([]error, len(ports))
	var dials sync.WaitGroup
	for i, port := range ports {
		dials.Go(func() {
			c, err := p.Dial(ctx, vm, port)
			if err == nil {
				_ = c.Close() // only the connect matters
				return
			}
			errs[i] = dialError(err)
		})
	}
	dials.Wait()
	var open []uint16
	result := ErrNoRoute
	for i, err := range errs {
		switch {
		case err == nil:
			open = append(open, ports[i])
		case errors.Is(err, ErrRefused):
			result = ErrRefused
		}
	}
	if len(open) > 0 {
		return open, nil
	}
	return nil, result
}

// CommonPorts returns where web servers and development tools listen.
func CommonPorts() []uint16 {
	ports := []uint16{80, 81, 443, 1313, 1337, 4000, 4200, 4321, 5601, 6006, 7860, 8501, 8787, 8888, 11434}
	for _, span := range [][2]uint16{{3000, 3010}, {5000, 5005}, {5173, 5180}, {8000, 8010}, {8080, 8090}, {9000, 9010}, {9090, 9093}} {
		for port := span[0]; port <= span[1]; port++ {
			ports = append(ports, port)
		}
	}
	return ports
}
