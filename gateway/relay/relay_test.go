package relay_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/gateway/relay"
)

// pair is a TCP connection on loopback.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	defer l.Close()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	gatewaytest.Must(t, err)
	accepted, err := l.Accept()
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _, _ = c.Close(), accepted.Close() })
	return accepted.(*net.TCPConn), c.(*net.TCPConn)
}

// joined is a client and a guest with a Join between them, which closes done when it returns.
func joined(ctx context.Context, t *testing.T) (client, guest *net.TCPConn, done chan struct{}) {
	t.Helper()
	a, client := pair(t)
	b, guest := pair(t)
	done = make(chan struct{})
	go func() {
		defer close(done)
		relay.Join(ctx, a, b)
	}()
	return client, guest, done
}

// Each direction ends on its own: a client that has sent everything still reads the answer.
func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "guest"} {
		client, guest, done := joined(t.Context(), t)
		one, other := client, guest
		if first == "guest" {
			one, other = guest, client
		}
		for _, say := range []struct {
			from, to *net.TCPConn
			text     string
		}{{one, other, "question"}, {other, one, strings.Repeat("answer", 100_000)}} {
			go func() {
				_, _ = io.WriteString(say.from, say.text) // what arrives is compared
				_ = say.from.CloseWrite()                 // as above
			}()
			if got, err := io.ReadAll(say.to); err != nil || string(got) != say.text {
				t.Errorf("%s first: %d bytes, %v; want %d", first, len(got), err, len(say.text))
			}
		}
		<-done
	}
}

// A stream that is cut off does not look complete to the other side.
func TestCutIsAReset(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for name, cut := range map[string]func(guest *net.TCPConn){
		"the guest resets": func(guest *net.TCPConn) { relay.Reset(guest) },
		"ctx ends":         func(*net.TCPConn) { cancel() },
	} {
		joinCtx := t.Context()
		if name == "ctx ends" {
			joinCtx = ctx
		}
		client, guest, done := joined(joinCtx, t)
		_, err := io.WriteString(guest, "half")
		gatewaytest.Must(t, err)
		_, err = io.ReadFull(client, make([]byte, 4))
		gatewaytest.Must(t, err)
		cut(guest)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the client reads %v, want a reset", name, err)
		}
		<-done
	}
}

func TestDialLeavesByTheTapAlone(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	c, err := relay.Dial(t.Context(), "tcp4", "lo", to)
	gatewaytest.Must(t, err)
	_ = c.Close()
	if c, err := relay.Dial(t.Context(), "tcp4", "lg0000ffff", to); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("without the tap: %v, %v; want ENODEV", c, err)
	}
}
