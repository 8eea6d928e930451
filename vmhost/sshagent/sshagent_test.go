package sshagent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"lodge/gateway/gatewaytest"
)

// newKey makes a private key and its public key.
func newKey(tb testing.TB) (ed25519.PrivateKey, ssh.PublicKey) {
	tb.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return private, public
}

func newServer(tb testing.TB) (*Server, ssh.PublicKey) {
	tb.Helper()
	private, public := newKey(tb)
	s, err := New(private, "the host", slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(err)
	}
	return s, public
}

// serve runs s on l until the test ends.
func serve(t *testing.T, s *Server, l net.Listener) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-ended); err != nil {
			t.Errorf("end: %v", err)
		}
	})
}

// listen makes a unix socket and returns a function that connects to it.
func listen(t *testing.T) (l net.Listener, dial func() net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l, func() net.Conn {
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// wantWorks checks that a client lists the key, and that it has made a signature.
func wantWorks(t *testing.T, client agent.ExtendedAgent, public ssh.PublicKey) {
	t.Helper()
	keys, err := client.List()
	if err != nil || len(keys) != 1 || keys[0].Comment != "the host" || string(keys[0].Marshal()) != string(public.Marshal()) {
		t.Fatalf("listed %v, %v", keys, err)
	}
	data := []byte("session and request")
	signature, err := client.Sign(public, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := public.Verify(data, signature); err != nil {
		t.Error(err)
	}
}

func TestOnlyListsAndSigns(t *testing.T) {
	s, public := newServer(t)
	l, dial := listen(t)
	serve(t, s, l)
	client := agent.NewClient(dial())
	wantWorks(t, client, public)
	other, otherPublic := newKey(t)
	for name, request := range map[string]func() error{
		"add":                       func() error { return client.Add(agent.AddedKey{PrivateKey: other}) },
		"add for a time":            func() error { return client.Add(agent.AddedKey{PrivateKey: other, LifetimeSecs: 1}) },
		"remove":                    func() error { return client.Remove(public) },
		"remove all":                client.RemoveAll,
		"lock":                      func() error { return client.Lock([]byte("x")) },
		"unlock":                    func() error { return client.Unlock([]byte("x")) },
		"an extension":              func() error { _, err := client.Extension("query", nil); return err },
		"a signature by another":    func() error { _, err := client.Sign(otherPublic, []byte("x")); return err },
		"binding to a login":        func() error { return bind(client, false) },
		"an extension that is torn": func() error { _, err := client.Extension("session-bind@openssh.com", []byte{0, 0}); return err },
	} {
		if err := request(); err == nil {
			t.Errorf("%s: it was accepted", name)
		}
		wantWorks(t, client, public) // on the same connection
	}
}

// bind announces the use of a connection as OpenSSH does.
func bind(client agent.ExtendedAgent, forwarding bool) error {
	_, err := client.Extension("session-bind@openssh.com", ssh.Marshal(struct {
		HostKey, SessionID, Signature []byte
		Forwarding                    bool
	}{[]byte("key"), []byte("id"), []byte("signature"), forwarding}))
	return err
}

func TestForwardedConnectionIsClosed(t *testing.T) {
	s, _ := newServer(t)
	l, dial := listen(t)
	serve(t, s, l)
	client := agent.NewClient(dial())
	if err := bind(client, true); err == nil {
		t.Error("the binding was accepted")
	}
	if keys, err := client.List(); err == nil {
		t.Errorf("listed %v", keys)
	}
}

// Flags choose a hash for RSA and are ignored for other keys, as in OpenSSH's agent.
func TestFlagsAreIgnored(t *testing.T) {
	s, public := newServer(t)
	l, dial := listen(t)
	serve(t, s, l)
	signature, err := agent.NewClient(dial()).SignWithFlags(public, []byte("x"), agent.SignatureFlagRsaSha512)
	if err != nil {
		t.Fatal(err)
	}
	if err := public.Verify([]byte("x"), signature); err != nil {
		t.Error(err)
	}
}

func TestRequestSize(t *testing.T) {
	s, public := newServer(t)
	for name, test := range map[string]struct {
		sent []byte
		want error
	}{
		"empty":     {[]byte{0, 0, 0, 0}, errSize},
		"large":     {framed(signing(public.Marshal(), make([]byte, maxRequestBytes-100), 0)), nil},
		"too large": {[]byte{0, 4, 0, 1}, errSize},
		"torn":      {[]byte{0, 4, 0, 0, requestIdentities}, io.ErrUnexpectedEOF},
	} {
		if err := s.exchange(&stream{Reader: bytes.NewReader(test.sent)}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// Connections that do nothing take the place of each other only.
func TestManyIdleConnections(t *testing.T) {
	s, public := newServer(t)
	l, dial := listen(t)
	serve(t, s, l)
	first := dial()
	for range 2 * maxConns {
		dial()
	}
	wantWorks(t, agent.NewClient(dial()), public)
	if n, err := first.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the first connection: %d, %v; want it closed", n, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.conns); n > maxConns {
		t.Errorf("%d connections are open, want at most %d", n, maxConns)
	}
}

// script is a net.Listener with results that the test sends.
type script struct {
	next   chan any // net.Conn or error
	closed chan struct{}
	once   sync.Once
}

func newScript() *script { return &script{next: make(chan any), closed: make(chan struct{})} }

func (s *script) Accept() (net.Conn, error) {
	select {
	case v := <-s.next:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *script) Close() error   { s.once.Do(func() { close(s.closed) }); return nil }
func (s *script) Addr() net.Addr { return &net.UnixAddr{} }

// connect has the server accept a pipe, and returns the other end.
func (s *script) connect() net.Conn {
	client, server := net.Pipe()
	s.next <- server
	return client
}

// A client has as long for each request as sshd gives a login, however slowly it sends.
func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, public := newServer(t)
		l := newScript()
		serve(t, s, l)
		c := l.connect()
		begun := time.Now()
		time.Sleep(maxIdle - time.Second) //nolint:forbidigo // no time passes in a bubble
		wantWorks(t, agent.NewClient(c), public)
		begun = begun.Add(maxIdle - time.Second)
		sent := []byte{0, 1, 0, 0} // the length of a long request, whose bytes follow every ten seconds
		for {
			if _, err := c.Write(sent); err != nil {
				break
			}
			sent = sent[:1]
			time.Sleep(10 * time.Second) //nolint:forbidigo // as above
			if time.Since(begun) > 2*maxIdle {
				t.Fatal("the connection stays open")
			}
		}
		if took := time.Since(begun); took < maxIdle {
			t.Errorf("closed after %s, want %s", took, maxIdle)
		}
	})
}

// A daemon that was out of descriptors for a moment serves again.
func TestSurvivesAcceptErrors(t *testing.T) {
	s, public := newServer(t)
	l := newScript()
	serve(t, s, l)
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		l.next <- &net.OpError{Op: "accept", Err: errno}
	}
	wantWorks(t, agent.NewClient(l.connect()), public)
}

// Connections that wait for a request end at once, and one whose reply nobody reads when the time
// is over.
func TestShutdown(t *testing.T) {
	s, public := newServer(t)
	l := newScript()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	idle := l.connect()
	wantWorks(t, agent.NewClient(idle), public)
	gatewaytest.Must(t, s.Shutdown(t.Context()))
	gatewaytest.Must(t, <-ended)
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	gatewaytest.Must(t, s.Serve(newScript())) // it is shut down already

	s, _ = newServer(t)
	l = newScript()
	go func() { ended <- s.Serve(l) }()
	stuck := l.connect() // a pipe holds nothing: the server waits in Write
	if _, err := stuck.Write([]byte{0, 0, 0, 1, requestIdentities}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shut down: %v", err)
	}
	gatewaytest.Must(t, <-ended)
}

// A request that panics ends its connection alone.
func TestPanicEndsOneConnection(t *testing.T) {
	s, public := newServer(t)
	keys := s.keys
	s.keys = panicking{keys}
	l, dial := listen(t)
	serve(t, s, l)
	if _, err := agent.NewClient(dial()).Sign(public, []byte("x")); err == nil {
		t.Error("there is a signature")
	}
	if _, err := agent.NewClient(dial()).List(); err != nil {
		t.Errorf("the next connection: %v", err)
	}
}

type panicking struct{ agent.Agent }

func (panicking) Sign(ssh.PublicKey, []byte) (*ssh.Signature, error) { panic("test") }
