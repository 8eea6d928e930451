package gateway

import (
	"net"

	"lodge/gateway/limit"
)

// FanIn, NewFanIn, Add and MaxConns export to tests what only TapListeners uses.
type FanIn = fanIn

func NewFanIn(each, all int) *FanIn {
	return newFanIn(&net.TCPAddr{Port: 80}, limit.New[vmService](each, all))
}

// Shared is another service below the same limit.
func (f *fanIn) Shared() *FanIn { return newFanIn(f.addr, f.live) }

// Add accepts from l until remove is called, which also closes the live connections.
func (f *fanIn) Add(vm Identity, l net.Listener) (remove func()) { return f.add(vm, l).end }

func MaxConns() int { return maxConns() }

const MaxConnsPerVM = maxConnsPerVM

// Serving is how many listeners were given to Serve.
func (d *DrainedServer) Serving() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.listen)
}
