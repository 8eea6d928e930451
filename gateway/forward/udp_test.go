package forward

import (
	"net"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// flowsOf is how many flows a UDP port has.
func (r *rig) flowsOf(port uint16) int {
	p, _ := r.port(gateway.HostPort{Protocol: gateway.UDP, Port: port})
	_, all := p.clients.Held(client{})
	return all
}

func TestFlowsExpire(t *testing.T) {
	r := newRig(t, toLoopback)
	r.life.first, r.life.replied = time.Millisecond, 2*time.Millisecond
	echoUDP(t, listenUDP(t, "127.0.0.1:53"))
	r.add(t, r.vm(t, "blog"), "5353:53/udp")
	c := dial(t, "udp", "", "127.0.0.1:5353")
	for range 3 { // also one after its flow has ended
		gatewaytest.WaitFor(t, "a flow gets an answer", func() bool {
			_, err := c.Write([]byte("x"))
			gatewaytest.Must(t, err)
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err = c.Read(make([]byte, 1))
			return err == nil
		})
		gatewaytest.WaitFor(t, "the flow ends", func() bool { return r.flowsOf(5353) == 0 })
	}
}

// The VM's datagrams do not keep a flow open, and until its client replies they are few: one datagram
// with a forged address has a bounded effect.
func TestVMCannotFloodAnAddress(t *testing.T) {
	r := newRig(t, toLoopback)
	r.life.early = 1000
	app := listenUDP(t, "127.0.0.1:53")
	r.add(t, r.vm(t, "blog"), "5353:53/udp")
	c := dial(t, "udp", "", "127.0.0.1:5353")
	_, err := c.Write([]byte("one"))
	gatewaytest.Must(t, err)
	buf := make([]byte, maxDatagram)
	_, flow, err := app.ReadFrom(buf)
	gatewaytest.Must(t, err)
	for range 10 {
		_, err := app.WriteTo(make([]byte, 300), flow)
		gatewaytest.Must(t, err)
	}
	stranger := listenUDP(t, "127.0.0.1:54") // another port of the VM
	_, err = stranger.WriteTo([]byte("from elsewhere"), flow)
	gatewaytest.Must(t, err)
	_, err = app.WriteTo(make([]byte, 100), flow)
	gatewaytest.Must(t, err)
	for _, want := range []int{300, 300, 300, 100} { // seven and the stranger's were dropped
		if n, err := c.Read(buf); n != want || err != nil {
			t.Errorf("an answer has %d bytes, %v; want %d", n, err, want)
		}
	}
	_, err = c.Write([]byte("two"))
	gatewaytest.Must(t, err)
	_, _, err = app.ReadFrom(buf)
	gatewaytest.Must(t, err)
	_, err = app.WriteTo(make([]byte, 1200), flow)
	gatewaytest.Must(t, err)
	if n, err := c.Read(buf); n != 1200 || err != nil {
		t.Errorf("after the client's reply: %d bytes, %v", n, err)
	}
}

// One address has a few flows. Many addresses, forged perhaps, end flows without a reply first, and
// never keep a newcomer out.
func TestFlowsAreBounded(t *testing.T) {
	r := newRig(t, toLoopback)
	echoUDP(t, listenUDP(t, "127.0.0.1:53"))
	r.add(t, r.vm(t, "blog"), "5353:53/udp")
	for range maxFlowsPerPeer {
		ask(t, dial(t, "udp", "192.0.2.2", "192.0.2.1:5353"), "x")
	}
	greedy := dial(t, "udp", "192.0.2.2", "192.0.2.1:5353")
	_, err := greedy.Write([]byte("x"))
	gatewaytest.Must(t, err)
	first := dial(t, "udp", "192.0.2.3", "192.0.2.1:5353")
	ask(t, first, "x")
	ask(t, first, "y") // it replies
	if n := r.flowsOf(5353); n != maxFlowsPerPeer+1 {
		t.Errorf("%d flows; one address has more than %d", n, maxFlowsPerPeer)
	}
	p, _ := r.port(gateway.HostPort{Protocol: gateway.UDP, Port: 5353})
	table := p.open[hostAddr].table
	flowOf := func(c net.Conn) bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		return table.flows[c.LocalAddr().(*net.UDPAddr).AddrPort()] != nil
	}
	for range maxFlows { // each of these is a client of its own, as on loopback
		c := dial(t, "udp", "127.0.0.1", "192.0.2.1:5353")
		ask(t, c, "x")
	}
	if n := r.flowsOf(5353); n > maxFlows {
		t.Errorf("%d flows", n)
	}
	if !flowOf(first) {
		t.Error("the flow with a reply was ended before those without")
	}
}
