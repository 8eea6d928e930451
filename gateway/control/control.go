// Package control is how people rule the host: HTTP and JSON over a unix socket that only root can reach.
//
// Listen makes the socket and looks at each caller's uid (SO_PEERCRED); Server turns each verb into a call of one small
// interface, which vmhost, mail and https satisfy; Client is the other end, and what cmd/lodge speaks. Errors travel as
// {"kind","error","hint"} and come out of Client as the *gateway.Error that went in. Long work (making a VM, waiting for
// one) is streamed: one JSON Event per line, the result or the error last.
//
// It never listens on the network, never decides who may do what (root may), and never logs what it answers.
package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"lodge/gateway"
)

// DefaultSocket is where lodged listens and lodge looks for it.
const DefaultSocket = "/run/lodge/lodged.sock"

// Machines makes and changes VMs; vmhost.Host is one.
type Machines interface {
	// New makes a VM and starts it; progress may be called from any goroutine until New returns. Cancelling ctx leaves nothing behind.
	New(ctx context.Context, spec gateway.Spec, progress func(gateway.Progress)) (gateway.VM, error)
	// Start returns when the VM runs, Stop when it does not; force pulls the plug.
	Start(ctx context.Context, id gateway.ID) error
	Stop(ctx context.Context, id gateway.ID, force bool) error
	Restart(ctx context.Context, id gateway.ID) error
	// Remove deletes the VM and all that is kept for it.
	Remove(ctx context.Context, id gateway.ID) error
}

// Observer looks at VMs and into them; vmhost.Host is one.
type Observer interface {
	Status(ctx context.Context, id gateway.ID) gateway.Status
	// Wait returns when the VM's userspace is up; progress hears of the phases "kernel" and "userspace".
	Wait(ctx context.Context, id gateway.ID, progress func(gateway.Progress)) error
	// Console is the VM's serial console. The caller closes it.
	Console(ctx context.Context, id gateway.ID) (net.Conn, error)
	// Log is what the console has said since the VM was made; with follow it goes on until ctx ends. The caller closes it.
	Log(ctx context.Context, id gateway.ID, follow bool) (io.ReadCloser, error)
	SSH(id gateway.ID) (gateway.SSHAccess, error)
}

// Mailbox reads VMs' mail; mail.Server is one.
type Mailbox interface {
	// List returns the newest messages, at most limit, newest first.
	List(ctx context.Context, id gateway.ID, limit int) ([]gateway.Message, error)
	// Open reads one message as it is stored (RFC 5322). The caller closes it.
	Open(ctx context.Context, id gateway.ID, queueID string) (io.ReadCloser, error)
}

// Web knows VMs' pages; https.Server is one.
type Web interface {
	// LoginURL makes a link that logs person in, once. The empty person is the owner.
	LoginURL(ctx context.Context, id gateway.ID, person string) (string, error)
	URL(m gateway.VM, port uint16) string
	// RootPEM is the certificate of our own CA.
	RootPEM() []byte
	// Probe says which port the VM's plain name leads to, if anything listens there.
	Probe(ctx context.Context, m gateway.VM) (port uint16, ok bool)
}

// Config is what a Server needs. Every field but Ready is required.
type Config struct {
	Directory *gateway.Directory
	Keyring   *gateway.Keyring
	Machines  Machines
	Observer  Observer
	Mailbox   Mailbox
	Web       Web
	Domain    string // below which VMs have their names
	Version   string // of this daemon
	Ready     func() error
	Logger    *slog.Logger
}

// Server serves the control API.
type Server struct {
	Config
	http http.Server
	stop context.CancelFunc
}

// New returns a Server that serves nothing yet.
func New(config Config) *Server {
	base, stop := context.WithCancel(context.Background())
	s := &Server{Config: config, stop: stop}
	s.http = http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers on l, a listener made by Listen, until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown ends consoles, followed logs and waits, lets other requests finish, and closes what is left when ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.http.SetKeepAlivesEnabled(false)
	s.stop()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}
