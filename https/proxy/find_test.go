package proxy

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Every request to a plain name looks its port up: what was found costs no memory.
func TestFoundPortAllocatesNothing(t *testing.T) {
	dials := 0
	p := New(Config{Logger: slog.New(slog.DiscardHandler), Dial: func(_ context.Context, _ gateway.VM, port uint16) (net.Conn, error) {
		if port != gateway.WebPorts()[0] {
			return nil, ErrRefused
		}
		dials++
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = ours.Close() }) // of a pipe: it cannot fail
		return theirs, nil
	}})
	t.Cleanup(p.Close)
	vm := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}}
	find := func() {
		_, err := p.Find(t.Context(), vm)
		gatewaytest.Must(t, err)
	}
	find()
	if n := testing.AllocsPerRun(100, find); n != 0 || dials != 1 {
		t.Errorf("%v allocations, %d dials", n, dials)
	}
}
