// Package https is the web side of the host: every VM at https://<vm>.<domain>, private unless it is shared.
//
// A request's name is decided once, by route, from one snapshot of the Directory; certificate, access and target all
// follow from that. The handshake refuses names that do not exist. Then access (public, a session of this very host
// name, or the VM itself on its own tap), then the headers that say who calls, then the VM is dialled.
//
// What this package never does: trust a header for who someone is, serve one VM's page under another's name, let the
// session cookie reach a VM, or dial a VM in any way but through its own tap.
package https

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/https/access"
	"lodge/https/ca"
	"lodge/https/login"
	"lodge/https/names"
	"lodge/https/pages"
	"lodge/https/proxy"
)

// Config is what a Server needs. All fields are required but Inside, Dial, AccessLog and LeafLife.
type Config struct {
	Domain    string // VMs are at https://<vm>.<domain>
	Port      int    // the port that people reach Serve at; it is part of URLs unless it is 443
	Dir       string // where the root certificate lives
	Owner     string // e-mail address of the person who may open everything
	Directory *gateway.Directory
	KV        ca.KV       // where certificates live
	Logins    login.Store // where sessions and one-time links live
	Logger    *slog.Logger

	// Inside are names that only guests can use, such as "s3.lodge.internal", each with the names directly below it.
	Inside map[string]http.Handler
	// Dial connects to a port of a VM. The default goes through the VM's tap and nowhere else.
	Dial func(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error)
	// AccessLog makes Logger get one line for each request.
	AccessLog bool
	// LeafLife is how long certificates are valid; 0 means ca.DefaultLeafLife.
	LeafLife time.Duration
}

// Server is the web side of the host. It is safe for concurrent use.
type Server struct {
	Config
	zone      names.Zone
	policy    access.Policy
	authority *ca.Authority
	login     *login.Handler
	proxy     *proxy.Proxy
	pages     *pages.Renderer
	web       *http.Server
	redirect  *http.Server

	cancel   context.CancelFunc // ends requests that outlive Shutdown
	draining atomic.Bool
	mu       sync.Mutex
	closed   bool // by Shutdown; guarded by mu
	open     map[net.Listener]struct{}
	conns    *connCount
	requests *limit.Limit[gateway.ID] // under way to each VM
}

// New reads or makes the root certificate and returns a Server that serves nothing yet. Shutdown ends it.
func New(cfg Config) (*Server, error) {
	renderer, err := pages.New(cfg.Logger)
	if err != nil {
		return nil, err
	}
	zone := names.Zone{Domain: cfg.Domain, Port: cfg.Port, Inside: slices.Collect(maps.Keys(cfg.Inside))}
	policy := access.Policy{Zone: zone, Owner: cfg.Owner}
	s := &Server{
		Config: cfg,
		zone:   zone,
		policy: policy,
		pages:  renderer,
		login:  login.New(login.Config{Policy: policy, Store: cfg.Logins, Pages: renderer, Logger: cfg.Logger}),
		open:   map[net.Listener]struct{}{},
		conns:  newConnCount(), requests: limit.New[gateway.ID](maxRequestsPerVM, 0),
	}
	authority, err := ca.Open(ca.Config{
		Dir: cfg.Dir, Domains: []string{cfg.Domain, gateway.InternalDomain}, KV: cfg.KV,
		Allow: s.hasLeaf, LeafLife: cfg.LeafLife, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.authority = authority
	s.proxy = proxy.New(proxy.Config{Dial: cfg.Dial, OnResponse: s.onResponse, Logger: cfg.Logger})
	s.web, s.redirect, s.cancel = s.servers()
	return s, nil
}

// RootPEM is the certificate that clients have to trust.
func (s *Server) RootPEM() []byte { return s.authority.RootPEM() }

// URL is where port of m is; gateway.DefaultPort gives the plain name.
func (s *Server) URL(m gateway.VM, port uint16) string {
	return s.zone.URL(m.Name, port)
}

// hasLeaf reports whether there is a certificate for this very name.
func (s *Server) hasLeaf(subject string) bool {
	name, ok := s.zone.Parse(subject)
	if !ok || name.Subject != subject {
		return false
	}
	if name.VMName == "" {
		return true
	}
	_, ok = s.Directory.ByName(name.VMName)
	return ok
}

// LoginURL makes a link that logs person in to the VM's plain name, once, within 15 minutes. The empty person is the
// owner. Errors: KindNotFound for a VM that is gone, KindDenied for a person who may not open it.
func (s *Server) LoginURL(ctx context.Context, id gateway.ID, person string) (string, error) {
	vm, ok := s.Directory.ByID(id)
	if !ok || vm.Desired == gateway.Removed {
		return "", gateway.Errorf(gateway.KindNotFound, "the VM is gone")
	}
	return s.login.Link(ctx, vm, cmp.Or(person, s.Owner))
}

// Probe says which port the plain name of m leads to now, if anything listens there.
func (s *Server) Probe(ctx context.Context, m gateway.VM) (uint16, bool) {
	port, err := s.proxy.Find(ctx, m)
	return port, err == nil
}

// Remove forgets a VM's sessions, links and certificate. It is called while the VM is being deleted.
func (s *Server) Remove(ctx context.Context, id gateway.ID) error {
	s.proxy.Remove(id)
	errs := []error{s.login.Remove(ctx, id)}
	if m, ok := s.Directory.ByID(id); ok {
		errs = append(errs, s.authority.Remove(ctx, m.Name+"."+s.Domain))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forget the VM's logins and certificate: %w", err)
	}
	return nil
}

// tlsConfig refuses names that are not ours in the handshake. The check is in GetConfigForClient because a resumed
// session never asks for a certificate.
func (s *Server) tlsConfig() *tls.Config {
	refuse := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true} // no certificate: alert unrecognized_name
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if _, ok := s.zone.Route(hello.ServerName, gateway.IdentityOf(hello.Conn), s.Directory); !ok {
				return refuse, nil
			}
			return nil, nil //nolint:nilnil // crypto/tls: go on with the config there is
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name, _ := s.zone.Parse(hello.ServerName) // GetConfigForClient has found it
			return s.authority.Certificate(hello.Context(), name.Subject)
		},
	}
}
