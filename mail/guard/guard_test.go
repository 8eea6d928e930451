package guard

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
)

func limits() Limits {
	return Limits{Conns: 3, PerPeer: 2, PerNet: 2, Idle: time.Minute, Crowded: time.Minute, Session: time.Minute, Writes: 10}
}

func listen(t *testing.T, l Limits) *Listener {
	t.Helper()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewListener(inner, l, Replies{Busy: "busy", HTTP: "no http"})
	t.Cleanup(func() { g.Close(); g.Cut() })
	return g
}

// pair is a client and the server's end of it.
func pair(t *testing.T, g *Listener) (client, server net.Conn) {
	t.Helper()
	client = dial(t, g)
	server, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func dial(t *testing.T, g *Listener) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func TestTooManyConnections(t *testing.T) {
	g := listen(t, limits())
	_, first := pair(t, g)
	pair(t, g)
	third := dial(t, g)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := g.Accept()
		accepted <- c
	}()
	if got, _ := io.ReadAll(third); string(got) != "busy\r\n" {
		t.Errorf("got %q", got)
	}
	first.Close()
	first.Close() // counts once
	dial(t, g)
	if c := <-accepted; c == nil || g.Count() != 2 {
		t.Errorf("%v accepted, %d open; want the place to be free again", c, g.Count())
	}
}

// Neighbours in one net share a limit: whoever has a /24 does not have it 256 times.
func TestTooManyFromOneNet(t *testing.T) {
	l := limits()
	l.Conns, l.PerNet = 100, 3
	g := listen(t, l)
	at := func(addr string) gateway.Peer { return gateway.PeerAt(netip.MustParseAddr(addr)) }
	for _, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		if _, ok := g.enter(at(addr)); !ok {
			t.Errorf("%s is refused", addr)
		}
	}
	if _, ok := g.enter(at("192.0.2.4")); ok {
		t.Error("the fourth address of a net is admitted")
	}
	leave, ok := g.enter(at("198.51.100.1"))
	if !ok {
		t.Fatal("another net is refused")
	}
	leave()
	if _, all := g.nets.Held(at("198.51.100.1").Around()); all != 3 {
		t.Errorf("%d places of nets are held, want 3", all)
	}
}

// Ten addresses that take all they get leave places for an eleventh.
func TestCrowdLeavesPlaces(t *testing.T) {
	l := Limits{Conns: 1000, PerPeer: 100, PerNet: 200}
	g := listen(t, l)
	for i := range 10 {
		for range 100 {
			g.enter(gateway.PeerAt(netip.AddrFrom4([4]byte{192, 0, byte(i), 1})))
		}
	}
	if _, ok := g.enter(gateway.PeerAt(netip.MustParseAddr("198.51.100.1"))); !ok {
		t.Error("the eleventh address is refused")
	}
}

func TestDeadlines(t *testing.T) {
	for name, change := range map[string]func(*Limits, *Conn){
		"idle":     func(_ *Limits, c *Conn) { c.SetIdle(30 * time.Millisecond) },
		"crowded":  func(l *Limits, _ *Conn) { l.Conns, l.Crowded = 1, 30*time.Millisecond },
		"session":  func(_ *Limits, c *Conn) { c.end = time.Now().Add(30 * time.Millisecond) },
		"transfer": func(_ *Limits, c *Conn) { c.Begin(30 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			g := listen(t, limits())
			_, server := pair(t, g)
			change(&g.limits, server.(*Conn))
			server.SetReadDeadline(time.Now().Add(time.Hour)) // has no effect
			if _, err := server.Read(make([]byte, 1)); !isTimeout(err) {
				t.Errorf("read: %v, want a timeout", err)
			}
		})
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func TestWritesEnd(t *testing.T) {
	g := listen(t, limits())
	_, server := pair(t, g)
	var err error
	for range 11 {
		_, err = server.Write([]byte("x"))
	}
	if !errors.Is(err, errWrites) || g.Count() != 0 {
		t.Errorf("%v, %d open", err, g.Count())
	}
}

// Drain lets a transfer finish and ends everything else.
func TestDrain(t *testing.T) {
	g := listen(t, limits())
	busyClient, server := pair(t, g)
	_, idle := pair(t, g)
	busy := server.(*Conn)
	busy.Begin(time.Minute)
	g.Drain()
	if _, err := idle.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("idle: %v", err)
	}
	io.WriteString(busyClient, "x")
	if _, err := busy.Read(make([]byte, 1)); err != nil {
		t.Errorf("busy: %v", err)
	}
	busy.End()
	if _, err := busy.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("done: %v", err)
	}
	if _, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
}

func TestHTTP(t *testing.T) {
	for line, want := range map[string]bool{
		"GET / HTTP/1.1\r\n": true, "POST /x": true, "PRI * HTTP/2.0\r\n": true, "OPTIONS * HTTP/1.0": true,
		"EHLO x\r\n": false, "a SELECT INBOX\r\n": false, "MAIL FROM:<GET@x>\r\nGET / HTTP/1.1": false, "": false,
	} {
		if isHTTP([]byte(line)) != want {
			t.Errorf("%q: %v", line, !want)
		}
	}
	g := listen(t, limits())
	client, server := pair(t, g)
	io.WriteString(client, "GE")
	if _, err := server.Read(make([]byte, 100)); err != nil {
		t.Error(err)
	}
	io.WriteString(client, "T / HTTP/1.1\r\n\r\n")
	if n, err := server.Read(make([]byte, 100)); n != 0 || err == nil {
		t.Errorf("the server saw %d bytes, %v", n, err)
	}
	if got, _ := io.ReadAll(client); !strings.HasPrefix(string(got), "no http") {
		t.Errorf("the client saw %q", got)
	}
}

// A method that is not in the list shows as HTTP only behind its URL, however long that is.
func TestLongFirstLineIsHTTP(t *testing.T) {
	client, server := pair(t, listen(t, limits()))
	go func() {
		_, _ = io.WriteString(client, "LOCK /"+strings.Repeat("x", 4000)+" HTTP/1.1\r\n\r\na DELETE INBOX\r\n")
	}() // the server closes meanwhile
	for {
		if n, err := server.Read(make([]byte, 300)); err != nil {
			return
		} else if n == 0 {
			t.Fatal("nothing was read")
		}
		if server.(*Conn).checked {
			t.Fatal("the request passed")
		}
	}
}
