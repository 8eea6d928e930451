package conns

import (
	"crypto/tls"
	"errors"
)

// maxHelloBytes is more than the 64 KiB of a handshake message that crypto/tls reads.
const maxHelloBytes = 80 << 10

// Pass is the error of a GetConfigForClient that passes the connection on: its TLS is not the
// server's. The client gets no alert, and Accept does not return the connection.
type Pass struct {
	// To owns the connection from then on. It gets what was read of it, and must not block: the
	// listener waits for it.
	To func(c *Conn, read []byte)
}

// Error implements error.
func (*Pass) Error() string { return "the connection is passed on" }

// hello is what was read of a connection until GetConfigForClient has decided. So crypto/tls is the
// only parser of a ClientHello. One goroutine at a time reads and writes during a handshake.
type hello struct {
	read   []byte
	passed bool
}

// keep adds what a call of Read has returned.
func (h *hello) keep(p []byte) error {
	if h.passed {
		return nil
	}
	if len(h.read)+len(p) > maxHelloBytes {
		return errors.New("the ClientHello is too large")
	}
	h.read = append(h.read, p...)
	return nil
}

// deciding returns a configuration that ends the recording of a connection where its
// GetConfigForClient has decided. The stack grows no earlier than that, for the rest of the
// handshake: a client that sends no ClientHello costs little.
func deciding(config *tls.Config) *tls.Config {
	decide := config.GetConfigForClient
	config = config.Clone()
	config.GetConfigForClient = func(info *tls.ClientHelloInfo) (own *tls.Config, err error) {
		growStack(0)
		if decide != nil {
			own, err = decide(info)
		}
		c := of(info.Conn) // of shake
		if _, c.hello.passed = errors.AsType[*Pass](err); !c.hello.passed {
			c.hello = nil
		}
		return own, err
	}
	return config
}

// pass passes c on after its handshake. It keeps its place, which it loses like a connection with a
// request under way. Wait does not wait for it.
func (g *Guard) pass(c *Conn, read []byte, to *Pass) {
	c.requests.Add(1)
	c.passed.Store(true)
	g.mu.Lock()
	g.served(c)
	g.mu.Unlock()
	to.To(c, read)
}
