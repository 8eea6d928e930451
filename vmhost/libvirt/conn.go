package libvirt

import (
	"context"
	"fmt"
	"net"
	"sync"

	rpc "github.com/digitalocean/go-libvirt"
)

// conn is one connection to libvirtd, logged in.
type conn struct {
	rpc  *rpc.Libvirt
	sock *socket
}

// dial connects to the unix socket at path and opens qemu:///system, all within ctx.
func dial(ctx context.Context, path string) (*conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dial libvirtd: %w", err)
	}
	c := &conn{sock: &socket{Conn: raw, dead: make(chan struct{})}}
	c.rpc = rpc.NewWithDialer(c.sock)
	done := make(chan error, 1)
	go func() { done <- c.rpc.ConnectToURI(rpc.QEMUSystem) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		c.close() // which ends ConnectToURI
		<-done
		err = context.Cause(ctx)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("log in to libvirtd: %w", err)
	}
	return c, nil
}

func (c *conn) alive() bool {
	select {
	case <-c.sock.dead:
		return false
	default:
		return true
	}
}

// close ends every call on the connection. The protocol has no closing message.
func (c *conn) close() { _ = c.sock.Close() } // the connection is not used again, whatever the error

// socket signals the end of its connection, which the RPC library cannot report without a race.
type socket struct {
	net.Conn
	dead chan struct{}
	once sync.Once
}

// Dial returns the existing connection to the RPC library.
func (s *socket) Dial() (net.Conn, error) { return s, nil }

func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if err != nil {
		s.die()
	}
	return n, err
}

func (s *socket) Close() error {
	s.die()
	return s.Conn.Close()
}

func (s *socket) die() { s.once.Do(func() { close(s.dead) }) }
