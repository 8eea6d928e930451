package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"lodge/gateway"
	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/mail/mailbox"
	"lodge/mail/verdict"
)

func TestMain(m *testing.M) { sandboxtest.Main(m, sandboxtest.Tmpfs("/run/netns")) }

const (
	us   = "lodge.example"
	text = "From: App <app@blog.lodge.example>\r\nTo: x@far.example\r\nSubject: hello\r\nDate: Sun, 29 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@blog.lodge.example>\r\n\r\nbody of %s\r\n.dot\r\n"
)

// rig is a queue whose servers are on loopback, with a zone of its own.
type rig struct {
	*Queue
	zone      *domainstest.Server
	mailboxes *mailbox.Store
	log       *gatewaytest.Log
	blog      gateway.Identity
	stop      func()
}

// fast are times with which a test need not wait.
func fast() Times {
	t := DefaultTimes()
	t.RetryMin, t.RetryMax, t.Connect, t.Command, t.Final = 20*time.Millisecond, 200*time.Millisecond, 20*time.Second, 20*time.Second, 20*time.Second
	return t
}

// start runs a queue on the port of servers, which have these DNS records.
func start(t *testing.T, port string, change func(*Config), records ...string) *rig {
	t.Helper()
	r := &rig{zone: domainstest.Start(t, records...), log: new(gatewaytest.Log), blog: gateway.Identity{ID: gateway.NewID(), Number: 1, Name: "blog"}}
	var err error
	r.mailboxes, err = mailbox.Open(t.TempDir(), r.log.Logger())
	gatewaytest.Must(t, err)
	t.Cleanup(r.mailboxes.Close)
	r.run(t, config(r, t.TempDir(), port, change))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.log)
		}
	})
	return r
}

func config(r *rig, dir, port string, change func(*Config)) Config {
	c := Config{
		Dir: dir, Domain: us, Mailboxes: r.mailboxes, Resolver: verdict.NewResolver("", r.zone.Addr), Limits: DefaultLimits(), Times: fast(),
		Logger: r.log.Logger(), port: port, inside: true,
	}
	if change != nil {
		change(&c)
	}
	return c
}

// run opens the queue and runs it until stop, or the test's end.
func (r *rig) run(t *testing.T, c Config) {
	t.Helper()
	q, err := New(c)
	gatewaytest.Must(t, err)
	r.Queue = q
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = q.Run(ctx) })
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait(); q.Close() })
	t.Cleanup(r.stop)
}

// allRead reports whether Run has read what is on disk.
func (q *Queue) allRead() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.unread) == 0
}

// send sends a message of the VM blog that has the token in its body.
func (r *rig) send(t *testing.T, token string, to ...string) string {
	t.Helper()
	id, err := r.Send(t.Context(), Message{VM: r.blog, From: "app@blog." + us, To: to, Body: strings.NewReader(fmt.Sprintf(text, token))})
	gatewaytest.Must(t, err)
	return id
}

// reports returns the reports in the mailbox of blog, the oldest first, once there are n.
func (r *rig) reports(t *testing.T, n int) (all []string) {
	t.Helper()
	box, err := r.mailboxes.Box(r.blog.ID)
	gatewaytest.Must(t, err)
	gatewaytest.WaitFor(t, fmt.Sprintf("%d reports", n), func() bool { return box.Snapshot().Entries.Len() >= n })
	for _, e := range box.Snapshot().Entries.All() {
		content, err := box.Open(e.UID)
		gatewaytest.Must(t, err)
		message, err := io.ReadAll(content)
		gatewaytest.Must(t, err)
		all = append(all, string(message))
	}
	if len(all) != n {
		t.Errorf("%d reports, want %d: %q", len(all), n, all)
	}
	return all
}

func (r *rig) waitEmpty(t *testing.T) {
	t.Helper()
	gatewaytest.WaitFor(t, "an empty queue", func() bool { return r.Waiting() == 0 })
}

// sink is a mail server of go-smtp.
type sink struct {
	port string
	rcpt func(to string) error // nil: all are accepted
	data func(text string) error

	mu       sync.Mutex
	got      []received
	sessions int
	login    string
}

type received struct {
	from string
	to   []string
	text string
	tls  bool
	helo string
}

// listen listens on an address of loopback; port "" is any.
func listen(t *testing.T, ip, port string) net.Listener {
	t.Helper()
	if port == "" {
		port = "0"
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(ip, port))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func portOf(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// serve runs the sink on an address.
func (s *sink) serve(t *testing.T, ip, port string, config *tls.Config) *sink {
	t.Helper()
	l := listen(t, ip, port)
	s.port = portOf(l)
	server := smtp.NewServer(s)
	server.Domain, server.TLSConfig, server.EnableSMTPUTF8, server.MaxRecipients = "sink.example", config, false, 200
	server.ErrorLog = log.New(io.Discard, "", 0)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return s
}

// NewSession implements smtp.Backend.
func (s *sink) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	return &sinkSession{sink: s, conn: c}, nil
}

func (s *sink) all() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received{}, s.got...)
}

// wait waits for n messages.
func (s *sink) wait(t *testing.T, n int) []received {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		if got := len(s.all()); got < n {
			return fmt.Errorf("%d of %d messages", got, n)
		}
		return nil
	})
	all := s.all()
	if len(all) != n {
		t.Errorf("%d messages, want %d", len(all), n)
	}
	return all
}

type sinkSession struct {
	*sink
	conn *smtp.Conn
	now  received
}

func (s *sinkSession) Reset()        { s.now = received{} }
func (s *sinkSession) Logout() error { return nil }

func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.now.from = from
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.rcpt != nil {
		if err := s.rcpt(to); err != nil {
			return err
		}
	}
	s.now.to = append(s.now.to, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.data != nil {
		if err := s.data(string(raw)); err != nil {
			return err
		}
	}
	_, secure := s.conn.TLSConnectionState()
	s.now.text, s.now.tls, s.now.helo = string(raw), secure, s.conn.Hostname()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, s.now)
	return nil
}

// AuthMechanisms implements smtp.AuthSession.
func (s *sinkSession) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth implements smtp.AuthSession.
func (s *sinkSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user+":"+password != s.login {
			return errors.New("wrong password")
		}
		return nil
	}), nil
}

func reply(code int, a, b, c int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{a, b, c}, Message: text}
}

// certificate makes one for a name, which the pool trusts.
func certificate(t *testing.T, name string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	cert := selfSigned(t, name)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	return &tls.Config{Certificates: []tls.Certificate{cert}}, pool
}

// raw runs a server on an address whose connections f serves.
func raw(t *testing.T, ip, port string, f func(net.Conn)) string {
	t.Helper()
	l := listen(t, ip, port)
	var serving sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			serving.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return portOf(l)
}
