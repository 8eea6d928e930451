package https

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"

	"lodge/gateway"
)

// dialTimeout is how long a VM may take to answer a SYN on its own tap.
const dialTimeout = 3 * time.Second

// dialTap is the default Config.Dial. The socket is bound to the VM's tap, so that a VM without one is not looked for in
// some other network.
func dialTap(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, m.Tap()) //nolint:gosec // a descriptor fits
		})
		return errors.Join(err, controlErr)
	}}
	c, err := dialer.DialContext(ctx, "tcp4", net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(port))))
	if err != nil {
		return nil, fmt.Errorf("dial VM: %w", err)
	}
	return c, nil
}

// Errors of a VM that does not answer.
var (
	errSilent = errors.New("nothing listens")               // the VM answers that nothing does
	errAbsent = errors.New("the VM does not answer at all") // it starts, hangs, or drops what it does not want
)

// sortDialError tells the two ways of not answering apart.
func sortDialError(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errSilent
	}
	return errAbsent
}

// foundTime is how long a found port is believed. A port that no longer answers is forgotten at once; this only bounds
// how long an earlier one of the list goes unseen.
const foundTime = 2 * time.Second

// probeTimeout is for one round of dials when looking for a port.
const probeTimeout = time.Second

// finder finds the port that a VM's plain name leads to: the first of the usual ones that listens.
type finder struct {
	dial   func(context.Context, gateway.VM, uint16) (net.Conn, error)
	flight singleflight.Group // a crowd at a silent VM asks it once
	mu     sync.Mutex
	found  map[gateway.ID]found
}

type found struct {
	port        uint16
	incarnation uint32
	until       time.Time
}

func newFinder(dial func(context.Context, gateway.VM, uint16) (net.Conn, error)) *finder {
	return &finder{dial: dial, found: map[gateway.ID]found{}}
}

// usualPorts, in order of preference.
func usualPorts() []uint16 { return []uint16{80, 8000, 8080, 3000, 5000, 5173} }

// find returns errSilent or errAbsent when there is none.
func (f *finder) find(ctx context.Context, m gateway.VM) (uint16, error) {
	f.mu.Lock()
	have, ok := f.found[m.ID]
	f.mu.Unlock()
	if ok && have.incarnation == m.Incarnation && time.Now().Before(have.until) {
		return have.port, nil
	}
	result := f.flight.DoChan(target{m.ID, m.Incarnation, 0}.String(), func() (any, error) {
		listening, err := f.listening(context.WithoutCancel(ctx), m, usualPorts())
		if err != nil {
			return uint16(0), err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.found[m.ID] = found{listening[0], m.Incarnation, time.Now().Add(foundTime)}
		return listening[0], nil
	})
	select {
	case r := <-result:
		return r.Val.(uint16), r.Err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (f *finder) forget(id gateway.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.found, id)
}

// listening says which of ports answer, in their order; errSilent when the VM says that none does, errAbsent when it says nothing.
func (f *finder) listening(ctx context.Context, m gateway.VM, ports []uint16) ([]uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	errs := make([]error, len(ports))
	var dials sync.WaitGroup
	for i, port := range ports {
		dials.Go(func() {
			c, err := f.dial(ctx, m, port)
			if errs[i] = err; err == nil {
				_ = c.Close() // it has answered, which is all that is asked
			}
		})
	}
	dials.Wait()
	var open []uint16
	result := errAbsent
	for i, err := range errs {
		if err == nil {
			open = append(open, ports[i])
		} else if errors.Is(sortDialError(err), errSilent) {
			result = errSilent
		}
	}
	if len(open) > 0 {
		return open, nil
	}
	return nil, result
}
