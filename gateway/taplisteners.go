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

	"lodge/gateway/sockets"
)

// TapListeners are the services that guests reach at LinkLocal. For each VM, each service listens
// once on that VM's tap, with SO_BINDTODEVICE. A connection accepted there belongs to that VM; one
// without the VM's address is closed.
//
// TCP services get one net.Listener for all VMs (Listener), whose connections carry their VM. UDP
// services are called once per VM with its socket (Packets).
type TapListeners struct {
	Sockets *sockets.Set // keeps the sockets open over a restart of the daemon; nil: nothing does

	mu      sync.Mutex
	streams map[uint16]*fanIn
	live    *connLimit // the TCP connections of all VMs and services
	packets map[uint16]packetService
	open    map[ID]*tapSockets
	shut    bool
	serving sync.WaitGroup // the UDP services
}

// packetService is a UDP service.
type packetService struct {
	serve    func(Identity, net.PacketConn)
	optional bool // left out where another process has the port
}

// tapSockets are the open sockets of one VM.
type tapSockets struct {
	vm      Identity
	tap     int // interface index: sockets stay bound to it even when a new tap gets the old name
	streams []*perVM
	packets []net.PacketConn
}

// NewTapListeners returns TapListeners without any service.
func NewTapListeners() *TapListeners {
	return &TapListeners{
		streams: map[uint16]*fanIn{}, live: newConnLimit(),
		packets: map[uint16]packetService{}, open: map[ID]*tapSockets{},
	}
}

// Listener adds a TCP service on port, before the first Open, and returns the listener that its
// server uses.
func (d *TapListeners) Listener(port uint16) net.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	fan := newFanIn(net.TCPAddrFromAddrPort(netip.AddrPortFrom(LinkLocal, port)), d.live)
	d.streams[port] = fan
	return fan
}

// Packets adds a UDP service on port, before the first Open. serve runs until the socket closes.
func (d *TapListeners) Packets(port uint16, serve func(Identity, net.PacketConn)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.packets[port] = packetService{serve: serve}
}

// PacketsUnlessTaken is Packets for a service that is left out on a tap where another process has
// the port.
func (d *TapListeners) PacketsUnlessTaken(port uint16, serve func(Identity, net.PacketConn)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.packets[port] = packetService{serve: serve, optional: true}
}

// Open listens on the VM's tap, which must exist, be up and have LinkLocal. All services are open
// after it, or none. Opening twice is no error; when the tap was made anew in between, the
// listeners are too. A port that another process holds gives a KindConflict error; after Shutdown
// it fails with net.ErrClosed.
func (d *TapListeners) Open(ctx context.Context, vm Identity) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !vm.Known() {
		return errors.New("open listeners: unknown VM")
	}
	if d.shut {
		return fmt.Errorf("open listeners on %s: %w", vm.Tap(), net.ErrClosed)
	}
	tap, err := net.InterfaceByName(vm.Tap())
	if err != nil {
		return fmt.Errorf("find tap %s: %w", vm.Tap(), err)
	}
	if have, ok := d.open[vm.ID]; ok {
		if have.vm == vm && have.tap == tap.Index {
			return nil
		}
		d.close(vm.ID)
	}
	opened := &tapSockets{vm: vm, tap: tap.Index}
	if err := d.listen(ctx, opened); err != nil {
		d.end(opened)
		return err
	}
	d.open[vm.ID] = opened
	return nil
}

// listen opens every service and adds it to opened, also those that it has opened before an error. An
// inherited socket is used for the same VM on the same interface only.
func (d *TapListeners) listen(ctx context.Context, opened *tapSockets) error {
	vm, config := opened.vm, tapConfig(opened.vm)
	for port, fan := range d.streams {
		l, err := sockets.Open(d.Sockets, socketName(vm.ID), sockets.At{Network: "tcp", Addr: address(port), Device: opened.tap},
			func() (net.Listener, error) { return config.Listen(ctx, "tcp4", address(port)) })
		if err != nil {
			return listenError(vm, "TCP", port, err)
		}
		opened.streams = append(opened.streams, fan.add(vm, ownStreams{l, vm.Addr}))
	}
	for port, service := range d.packets {
		c, err := sockets.Open(d.Sockets, socketName(vm.ID), sockets.At{Network: "udp", Addr: address(port), Device: opened.tap},
			func() (net.PacketConn, error) { return config.ListenPacket(ctx, "udp4", address(port)) })
		if service.optional && errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return listenError(vm, "UDP", port, err)
		}
		opened.packets = append(opened.packets, c)
		d.serving.Go(func() { service.serve(vm, ownPackets{c, vm.Addr}) })
	}
	return nil
}

func socketName(id ID) string { return sockets.Taps + id.String() }

// CloseRest closes the sockets of the daemon before this one that no Open has used: those of VMs that
// were removed, and of taps that were made anew.
func (d *TapListeners) CloseRest() { d.Sockets.CloseRest(sockets.Taps) }

// Close closes the VM's listeners and its live connections.
func (d *TapListeners) Close(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.close(id)
}

func (d *TapListeners) close(id ID) {
	if opened, ok := d.open[id]; ok {
		d.end(opened)
		delete(d.open, id)
	}
}

// end closes a VM's sockets for good, and its live connections.
func (d *TapListeners) end(opened *tapSockets) {
	opened.stop()
	for _, p := range opened.streams {
		p.end()
	}
	d.Sockets.Remove(socketName(opened.vm.ID))
}

// Shutdown stops serving all VMs and waits for the UDP services. Live TCP connections are left to their
// servers, and what comes from here on to the next daemon: Sockets keeps the sockets open.
func (d *TapListeners) Shutdown() {
	d.mu.Lock()
	d.shut = true
	for _, fan := range d.streams {
		_ = fan.Close() // a fanIn's Close cannot fail
	}
	for _, opened := range d.open {
		opened.stop()
	}
	clear(d.open)
	d.mu.Unlock()
	d.serving.Wait()
}

// stop closes the sockets; live connections stay open.
func (s *tapSockets) stop() {
	for _, p := range s.streams {
		p.stop()
	}
	for _, c := range s.packets {
		_ = c.Close() // it ends the service's reads, which is the purpose
	}
}

func address(port uint16) string {
	return net.JoinHostPort(LinkLocal.String(), strconv.Itoa(int(port)))
}

// tapConfig binds sockets to the VM's tap before they listen. Multipath TCP (RFC 8684) is off: a
// connection of it could take in subflows from another tap.
func tapConfig(vm Identity) *net.ListenConfig {
	config := &net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var bound error
		err := raw.Control(func(fd uintptr) { bound = syscall.BindToDevice(int(fd), vm.Tap()) })
		return errors.Join(err, bound)
	}}
	config.SetMultipathTCP(false)
	return config
}

func listenError(vm Identity, network string, port uint16, err error) error {
	err = fmt.Errorf("listen on %s %s port %d: %w", vm.Tap(), network, port, err)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return Errorf(KindConflict, "another process has %s port %d of %s on %s", network, port, LinkLocal, vm.Tap()).
		WithHint("See which: ss -lntup 'sport = :%d'. Stop it, or let it listen on one address instead of all.", port).
		Because(err)
}
