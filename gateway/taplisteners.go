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

// TapListeners are the services that guests reach at LinkLocal. For each VM, each service listens
// once on that VM's tap, with SO_BINDTODEVICE. A connection accepted there belongs to that VM; one
// without the VM's address is closed.
//
// TCP services get one net.Listener for all VMs (Listener), whose connections carry their VM. UDP
// services are called once per VM with its socket (Packets).
type TapListeners struct {
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
	sockets := &tapSockets{vm: vm, tap: tap.Index}
	if err := d.listen(ctx, sockets); err != nil {
		sockets.end()
		return err
	}
	d.open[vm.ID] = sockets
	return nil
}

// listen opens every service and adds it to sockets, also those that it has opened before an error.
func (d *TapListeners) listen(ctx context.Context, sockets *tapSockets) error {
	config := tapConfig(sockets.vm)
	for port, fan := range d.streams {
		l, err := config.Listen(ctx, "tcp4", address(port))
		if err != nil {
			return listenError(sockets.vm, "TCP", port, err)
		}
		sockets.streams = append(sockets.streams, fan.add(sockets.vm, ownStreams{l, sockets.vm.Addr}))
	}
	for port, service := range d.packets {
		c, err := config.ListenPacket(ctx, "udp4", address(port))
		if service.optional && errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return listenError(sockets.vm, "UDP", port, err)
		}
		sockets.packets = append(sockets.packets, c)
		d.serving.Go(func() { service.serve(sockets.vm, ownPackets{c, sockets.vm.Addr}) })
	}
	return nil
}

// Close closes the VM's listeners and its live connections.
func (d *TapListeners) Close(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.close(id)
}

func (d *TapListeners) close(id ID) {
	if sockets, ok := d.open[id]; ok {
		sockets.end()
		delete(d.open, id)
	}
}

// Shutdown closes every listener of every VM for good and waits for the UDP services. Live TCP
// connections are left to their servers.
func (d *TapListeners) Shutdown() {
	d.mu.Lock()
	d.shut = true
	for _, fan := range d.streams {
		_ = fan.Close() // a fanIn's Close cannot fail
	}
	for _, sockets := range d.open {
		sockets.stop()
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

// end closes the sockets and the live connections.
func (s *tapSockets) end() {
	s.stop()
	for _, p := range s.streams {
		p.end()
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
