package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"lodge/gateway"
)

// wrapper is a server's own wrapper around a connection.
type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

// opaque hides what is beneath it.
type opaque struct{ net.Conn }

// endless is a wrapper around itself.
type endless struct{ net.Conn }

func (e endless) NetConn() net.Conn { return e }

func layers(vm gateway.Identity) (plain, overTLS net.Conn) {
	_, raw := net.Pipe()
	plain = gateway.NewConn(raw, vm)
	return plain, wrapper{tls.Server(wrapper{plain}, &tls.Config{})} //nolint:gosec // no handshake is ever made
}

func TestVMOf(t *testing.T) {
	a := vm(1, "alice", "10.213.0.2")
	plain, overTLS := layers(a)
	_, raw := net.Pipe()
	for _, tt := range []struct {
		name string
		conn net.Conn
		want gateway.Identity
	}{
		{"plain", plain, a},
		{"TLS between wrappers", overTLS, a},
		{"not from a tap", raw, gateway.Identity{}},
		{"TLS not from a tap", tls.Server(raw, &tls.Config{}), gateway.Identity{}}, //nolint:gosec // no handshake is ever made
		{"hidden", opaque{plain}, gateway.Identity{}},
		{"endless", endless{raw}, gateway.Identity{}},
		{"none", nil, gateway.Identity{}},
	} {
		if got := gateway.IdentityOf(tt.conn); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if got := gateway.VMFrom(gateway.ConnContext(t.Context(), tt.conn)); got != tt.want {
			t.Errorf("%s, by context: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := gateway.VMFrom(context.WithoutCancel(t.Context())); got.Known() {
		t.Errorf("a bare context has %v", got)
	}
}

func TestVMOfAllocatesNothing(t *testing.T) {
	plain, overTLS := layers(vm(1, "alice", "10.213.0.2"))
	for name, c := range map[string]net.Conn{"plain": plain, "TLS": overTLS} {
		if n := testing.AllocsPerRun(100, func() { gateway.IdentityOf(c) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func BenchmarkVMOf(b *testing.B) {
	plain, overTLS := layers(gateway.Identity{ID: gateway.NewID(), Number: 1, Name: "alice"})
	for name, c := range map[string]net.Conn{"plain": plain, "tls": overTLS} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !gateway.IdentityOf(c).Known() {
					b.Fatal("unknown")
				}
			}
		})
	}
}

// fullDuplex has the optional methods of *net.TCPConn.
type fullDuplex struct {
	net.Conn
	bytes.Buffer
	halfClosed bool
}

func (f *fullDuplex) Write(p []byte) (int, error) { return f.Buffer.Write(p) }
func (f *fullDuplex) Read(p []byte) (int, error)  { return f.Buffer.Read(p) }
func (f *fullDuplex) CloseWrite() error           { f.halfClosed = true; return nil }

func TestConnKeepsWhatTCPCan(t *testing.T) {
	beneath := &fullDuplex{}
	c := gateway.NewConn(beneath, gateway.Identity{})
	if n, err := io.Copy(c, strings.NewReader("a file")); n != 6 || err != nil || beneath.String() != "a file" {
		t.Errorf("copied %d, %v: %q", n, err, beneath.String())
	}
	if err := c.CloseWrite(); err != nil || !beneath.halfClosed {
		t.Errorf("CloseWrite: %v", err)
	}
	_, raw := net.Pipe()
	if err := gateway.NewConn(raw, gateway.Identity{}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite of a pipe: %v", err)
	}
}
