package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
)

// Doors are the services that guests reach at LinkLocal. For each VM, each service listens once on that VM's tap with
// SO_BINDTODEVICE: a connection accepted there is that VM's, whatever its packets claim.
//
// TCP services get one net.Listener for all VMs (Listener), whose connections carry their VM. UDP services are called
// once per VM with its socket (Packets).
type Doors struct {
	mu      sync.Mutex
	streams map[uint16]*FanIn
	packets map[uint16]func(VM, net.PacketConn)
	open    map[ID][]func() // what closes the VM's doors
	packetW sync.WaitGroup
}

// NewDoors returns Doors without any service.
func NewDoors() *Doors {
	return &Doors{streams: map[uint16]*FanIn{}, packets: map[uint16]func(VM, net.PacketConn){}, open: map[ID][]func(){}}
}

// Listener adds a TCP service on port, before the first Open, and returns the listener that its server uses.
func (d *Doors) Listener(port uint16) net.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	fan := NewFanIn(net.TCPAddrFromAddrPort(netip.AddrPortFrom(LinkLocal, port)))
	d.streams[port] = fan
	return fan
}

// Packets adds a UDP service on port, before the first Open. serve runs until the socket closes.
func (d *Doors) Packets(port uint16, serve func(VM, net.PacketConn)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.packets[port] = serve
}

// Open listens on the VM's tap, which must exist, be up and have LinkLocal. All services are open after it, or none.
// Opening twice is no error.
func (d *Doors) Open(ctx context.Context, vm VM) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !vm.Known() {
		return errors.New("open doors: unknown VM")
	}
	if _, ok := d.open[vm.ID]; ok {
		return nil
	}
	var closers []func()
	for port, fan := range d.streams {
		l, err := tapConfig(vm).Listen(ctx, "tcp4", address(port))
		if err != nil {
			closeAll(closers)
			return fmt.Errorf("listen on %s port %d: %w", vm.Tap(), port, err)
		}
		closers = append(closers, fan.Add(vm, l))
	}
	for port, serve := range d.packets {
		c, err := tapConfig(vm).ListenPacket(ctx, "udp4", address(port))
		if err != nil {
			closeAll(closers)
			return fmt.Errorf("listen on %s port %d: %w", vm.Tap(), port, err)
		}
		closers = append(closers, func() { _ = c.Close() }) // closing only ends the reader
		d.packetW.Go(func() { serve(vm, c) })
	}
	d.open[vm.ID] = closers
	return nil
}

// Close shuts the VM's doors and ends its live connections.
func (d *Doors) Close(id ID) {
	d.mu.Lock()
	closers := d.open[id]
	delete(d.open, id)
	d.mu.Unlock()
	closeAll(closers)
}

// Shutdown closes every door of every VM and waits for the UDP services. Live TCP connections are left to their servers.
func (d *Doors) Shutdown() {
	d.mu.Lock()
	for _, fan := range d.streams {
		_ = fan.Close() // a FanIn's Close cannot fail
	}
	for id, closers := range d.open {
		delete(d.open, id)
		closeAll(closers)
	}
	d.mu.Unlock()
	d.packetW.Wait()
}

func closeAll(closers []func()) {
	for _, c := range closers {
		c()
	}
}

func address(port uint16) string {
	return net.JoinHostPort(LinkLocal.String(), strconv.Itoa(int(port)))
}

// tapConfig binds sockets to the VM's tap before they listen.
func tapConfig(vm VM) *net.ListenConfig {
	return &net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var bound error
		err := raw.Control(func(fd uintptr) { bound = syscall.BindToDevice(int(fd), vm.Tap()) })
		return errors.Join(err, bound)
	}}
}
