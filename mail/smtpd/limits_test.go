package smtpd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// elsewhere is a listener whose connections have another remote address.
type elsewhere struct {
	net.Listener
	from atomic.Pointer[net.TCPAddr]
}

type elsewhereConn struct {
	net.Conn
	from net.Addr
}

func (c elsewhereConn) RemoteAddr() net.Addr { return c.from }

func (l *elsewhere) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return elsewhereConn{c, l.from.Load()}, nil
}

func (l *elsewhere) at(ip string) { l.from.Store(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}) }

func serveElsewhere(t *testing.T, change func(*Config)) (*host, *elsewhere) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	e := &elsewhere{Listener: l}
	e.at("192.0.2.1")
	return serveOn(t, e, change), e
}

// Whoever speaks before the banner is refused.
func TestBeforeTheBanner(t *testing.T) {
	h := serve(t, func(c *Config) { c.Limits.Greet = 30 * time.Second }) // the client's bytes end it at once
	c := h.connect(t)
	c.send("EHLO x\r\n" + envelope + "DATA\r\nx\r\n.\r\n")
	if rest := c.ended(); rest != "554 5.5.0 Commands before the banner\r\n" {
		t.Errorf("got %q", rest)
	}
	h.wantNothing(t)
	h = serve(t, func(c *Config) { c.Limits.Greet = time.Millisecond })
	h.dial(t).send("QUIT\r\n")
}

// An address that connects too often waits; others do not, and neither does this host.
func TestRateOfConnections(t *testing.T) {
	h, from := serveElsewhere(t, func(c *Config) { c.Limits.Rates.Conns = Rate{1e-9, 2} })
	for range 2 {
		h.dial(t)
	}
	h.connect(t).want("421 4.7.0 Too many connections from your address")
	for i := range 6 { // the net around it may four times as often
		from.at(fmt.Sprint("192.0.2.", 10+i))
		h.dial(t)
	}
	from.at("192.0.2.99")
	h.connect(t).want("421 4.7.0")
	for _, ip := range []string{"192.0.3.1", "2001:db8::1", "127.0.0.1", "127.0.0.1", "127.0.0.1"} {
		from.at(ip)
		h.dial(t)
	}
}

func TestRateOfMessages(t *testing.T) {
	h, _ := serveElsewhere(t, func(c *Config) { c.Limits.Rates.Messages = Rate{1e-9, 2} })
	c := h.dial(t)
	c.send("MAIL FROM:<a@b.c>\r\nRSET\r\nMAIL FROM:<a@b.c>\r\nRSET\r\nMAIL FROM:<a@b.c>\r\nNOOP\r\n")
	c.want("250", "250", "250", "250", "450 4.7.1 Too many messages", "250")
}

// Replies to refused recipients wait for their turn, over all connections of an address, and end the
// session when the wait is too long. Accepted ones do not wait.
func TestTarpit(t *testing.T) {
	h, _ := serveElsewhere(t, func(c *Config) { c.Limits.Rates.Refused = Rate{20, 1} })
	begun := time.Now()
	c := h.dial(t)
	c.send("MAIL FROM:<a@b.c>\r\n" + strings.Repeat("RCPT TO:<x@none.lodge.test>\r\n", 6))
	c.want("250", "550", "550", "550", "550", "550", "550")
	if took := time.Since(begun); took < 250*time.Millisecond { // five waits of 50 ms
		t.Errorf("six refusals took %v", took)
	}
	h, from := serveElsewhere(t, func(c *Config) { c.Limits.Rates.Refused = Rate{1e-9, 1} })
	c = h.dial(t)
	c.send("MAIL FROM:<a@b.c>\r\nRCPT TO:<x@none.lodge.test>\r\nRCPT TO:<x@blog.lodge.test>\r\nRCPT TO:<x@none.lodge.test>\r\n")
	c.want("250", "550", "250", "421 4.7.0 Too many unknown recipients")
	c = h.dial(t)
	c.send("MAIL FROM:<a@b.c>\r\nRCPT TO:<x@none.lodge.test>\r\n")
	c.want("250", "421")
	from.at("192.0.3.1")
	c = h.dial(t)
	c.send("MAIL FROM:<a@b.c>\r\nRCPT TO:<x@none.lodge.test>\r\n")
	c.want("250", "550")
}

// A client that is refused whatever the recipient does not look for those that exist: each gets the
// same reply, which is final.
func TestNoTarpitForBlockedClient(t *testing.T) {
	h, _ := serveElsewhere(t, func(c *Config) { c.Limits.Rates.Refused = Rate{1e-9, 1} })
	c := h.dial(t)
	c.send("MAIL FROM:<a@b.c>\r\n" + strings.Repeat("RCPT TO:<listed@blog.lodge.test>\r\n", 3) + "RCPT TO:<x@none.lodge.test>\r\n")
	c.want("250", "554 5.7.1", "554 5.7.1", "554 5.7.1", "550")
}

// A drain ends the wait of a tarpit, and sessions without a message.
func TestDrain(t *testing.T) {
	h, _ := serveElsewhere(t, func(c *Config) { c.Limits.Rates.Refused = Rate{0.2, 1} })
	tarred := h.dial(t)
	tarred.send("MAIL FROM:<a@b.c>\r\n" + strings.Repeat("RCPT TO:<x@none.lodge.test>\r\n", 2))
	tarred.want("250") // sent with the replies that wait
	idle, busy := h.dial(t), h.dial(t)
	busy.send(envelope + "DATA\r\nx")
	busy.want("250", "250", "354")
	down := make(chan error, 1)
	go func() { down <- h.server.Shutdown(t.Context()) }()
	idle.want("421 4.3.2 Shutting down")
	tarred.want("550", "421 4.3.2")
	busy.send("\r\n.\r\nMAIL FROM:<a@b.c>\r\n")
	busy.want("250 2.0.0 OK: queued", "421 4.3.2")
	gatewaytest.Must(t, <-down)
	if len(h.all()) != 1 {
		t.Errorf("kept %+v", h.all())
	}
}

// A client is idle for a short time until its first recipient is accepted.
func TestShortIdle(t *testing.T) {
	h := serve(t, func(c *Config) { c.Limits.Early = 2 * time.Second })
	c := h.connect(t)
	c.want("220", "421 4.4.2 Timeout")
	c = h.connect(t)
	c.want("220")
	c.send("EHLO x\r\n" + envelope)
	c.want("250", "250", "250")
	c.send("RSET\r\n") // whenever that is, the connection is open
	c.want("250")
}

// One after the other, a session takes many messages, but not commands without end.
func TestManyCommands(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	go func() { _, _ = io.WriteString(c, strings.Repeat("NOOP\r\n", maxCommands+10)) }()
	n := 0
	for {
		line, err := c.answer()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "421 4.7.0 Too many commands") {
			break
		}
		n++
	}
	if n != maxCommands-1 { // and EHLO
		t.Errorf("%d commands", n)
	}
}

// Recipients beyond the limit are refused for now, however many, and the message goes to the first.
func TestManyRecipients(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	var all bytes.Buffer
	all.WriteString("MAIL FROM:<>\r\n")
	for i := range 1000 {
		fmt.Fprintf(&all, "RCPT TO:<u%d@blog.lodge.test>\r\n", i)
	}
	c.send(all.String() + "DATA\r\n")
	c.want("250")
	for i := range 1000 {
		if i < maxRecipients {
			c.want("250")
		} else {
			c.want("452 4.5.3")
		}
	}
	c.want("354")
	c.send("x\r\n.\r\n")
	c.want("250")
	if n := len(h.all()[0].Envelope.To); n != maxRecipients {
		t.Errorf("%d recipients", n)
	}
}

// A VM has tokens of its own and no net around it; addresses share those of their net.
func TestRatesOfNets(t *testing.T) {
	now := time.Now()
	r := newPeerRates(Rate{1e-9, 1})
	at := func(last byte) gateway.Peer {
		return gateway.PeerOf(elsewhereConn{from: &net.TCPAddr{IP: net.IPv4(203, 0, 113, last), Port: 1}})
	}
	for last := range byte(netFactor) {
		if !r.take(at(last), now) || r.take(at(last), now) {
			t.Errorf("address %d has not one token", last)
		}
	}
	if r.take(at(9), now) {
		t.Error("the net has more tokens than four addresses")
	}
	vm := gateway.Peer{VM: gateway.ID{7}}
	if !r.take(vm, now) || r.take(vm, now) {
		t.Error("a VM has not one token")
	}
}

// A panic of the policy ends its session alone, and is logged.
func TestPanic(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	config := testConfig(panicking{})
	log := new(gatewaytest.Log)
	config.Logger = log.Logger()
	server := New(config)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	h := &host{t: t, addr: l.Addr().String()}
	c := h.dial(t)
	c.send("MAIL FROM:<a@b.c>\r\n")
	c.ended()
	h.dial(t)
	_ = server.Shutdown(t.Context())
	gatewaytest.Must(t, <-done)
	if log.Count("smtp session panicked") != 1 || log.Count("level=ERROR") != 1 {
		t.Errorf("log: %s", log)
	}
}

type panicking struct{ Policy }

func (panicking) Sender(context.Context, Client, Envelope) error { panic("test") }
