// Package https serves the web of the host: every VM at https://<vm>.<domain>, private unless it is
// shared.
//
// The handshake refuses names of other zones. Certificates are of the host's own authority (ca) or,
// if configured, of a public one (acme). Each request has its host name looked up (package names),
// and again if the VM changes or was woken. A decision follows from the route and the visitor
// (access): the port is public, the visitor has a session for this host name (login), or it is the VM
// itself on its own tap. Then the request goes to the VM (proxy). All other answers are pages.
//
// This package never trusts a header for identity, never serves a VM's page under the name of
// another, never lets the session cookie reach a VM, and never dials a VM but through its own tap.
package https

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/https/access"
	"lodge/https/acme"
	"lodge/https/ca"
	"lodge/https/conns"
	"lodge/https/h3"
	"lodge/https/login"
	"lodge/https/login/apex"
	"lodge/https/login/oidc"
	"lodge/https/login/passkey"
	"lodge/https/names"
	"lodge/https/pages"
	"lodge/https/proxy"
	"lodge/https/quota"
	_ "lodge/https/xconnect" // WebSockets of HTTP/2
)

// Config is what a Server needs. All fields are required but those from Inside on.
type Config struct {
	Domain    string // VMs are at https://<vm>.<domain>
	Port      int    // the port that people reach; it is part of URLs unless it is 443
	Dir       string // directory of the root certificate
	Directory *gateway.Directory
	People    *people.Book
	Logins    login.Store   // keeps sessions and one-time links
	Sessions  apex.Sessions // keeps logins at the domain itself
	Passkeys  passkey.Store
	Kept      Kept
	Requests  *people.Requests
	Logger    *slog.Logger

	// LoginProviders prove mail addresses, by OpenID Connect.
	LoginProviders []oidc.Provider
	// Inside has the handlers of names for guests only, such as "s3.lodge.internal", each with the
	// names directly below it.
	Inside map[string]http.Handler
	// Services has the handlers of names below the domain that are the host's, such as "s3.<domain>", each
	// with all names below it. They authenticate their callers.
	Services map[string]http.Handler
	// Root has the handlers of paths at the domain itself, which strangers may read.
	Root map[string]http.Handler
	// Dial connects to a port of a VM. The default goes through the VM's tap and nowhere else.
	Dial func(ctx context.Context, vm gateway.VM, port uint16) (net.Conn, error)
	// Wake starts a stopped VM whose record has WakeOnRequest. It fails while the VM is being stopped:
	// a request does not undo that. The default wakes none.
	Wake func(ctx context.Context, id gateway.ID) error
	// Verbs are behind the buttons that start a VM and that answer requests for access. By default pages
	// have none.
	Verbs Verbs
	// Asked is called for each new request for access to a VM, once it is on disk. It must return at once. By default
	// nothing is done.
	Asked func(gateway.AccessRequest)
	// HoldTime is how long a request waits for a VM that was woken; 0 means 50 s.
	HoldTime time.Duration
	// TrustedProxies are believed about the address of their client, in X-Forwarded-For. Like loopback,
	// they may have any part of the places for connections that is free.
	TrustedProxies []netip.Prefix
	// CustomCertificate, if not nil, is asked for the certificates of custom domains in place of ACME.
	// Without either their handshakes are refused: the host's own root cannot sign for them.
	CustomCertificate func(ctx context.Context, host string) (*tls.Certificate, error)
	// Passthrough returns the port of a VM that ends the TLS of a name itself, which is normalized: such
	// a connection goes there unread, and is cut off by the change of the Directory after which the
	// answer is another one. It is called during changes, and must not wait for one; a VM keeps its names
	// while it is off. The default is none.
	Passthrough func(sni string) (vm gateway.VM, port uint16, ok bool)
	// HTTP3 offers HTTP/3 at Port, where ServeHTTP3 serves it.
	HTTP3 bool
	// NoRates admits requests at any rate, for measurements.
	NoRates bool
	// AccessLog logs one line for each request.
	AccessLog bool
	// ACME, if not nil, is the source of public certificates. New sets Domain, Owner and Logger.
	ACME *acme.Config
	// LeafLife is how long the own authority's leaves are valid; 0 means ca.DefaultLeafLife.
	LeafLife time.Duration
}

// Kept is all that is kept of persons; store.Store has it.
type Kept interface {
	// RemoveOthers removes what is kept of persons for whom known returns false.
	RemoveOthers(ctx context.Context, known func(gateway.Principal) bool) error
}

// Server serves the web of the host. It is safe for concurrent use.
type Server struct {
	Config
	zone      names.Zone
	policy    access.Policy
	authority *ca.Authority
	acme      *acme.Source // nil without Config.ACME
	login     *login.Handler
	apex      *apex.Handler
	proxy     *proxy.Proxy
	pages     *pages.Renderer
	web       *http.Server
	redirect  *http.Server
	http3     *h3.Server

	cancel   context.CancelFunc // ends requests that outlive Shutdown
	draining atomic.Bool
	mu       sync.Mutex
	closed   bool // by Shutdown; guarded by mu
	open     map[net.Listener]struct{}
	serving  sync.WaitGroup // of open
	conns    *conns.Guard
	passing  *passing
	quota    *quota.Quota
	waker    *waker
	live     *live
	persons  []people.Person // at the last change of the Book, whose Watch guards it
	metrics  metrics
}

// New reads or makes the root certificate and returns a Server. Call Shutdown when done, also if it
// never served.
func New(cfg Config) (*Server, error) {
	renderer, err := pages.New(passkey.Script, cfg.Logger)
	if err != nil {
		return nil, err
	}
	zone := names.Zone{Domain: cfg.Domain, Guests: gateway.InternalDomain, Port: cfg.Port, Inside: slices.Collect(maps.Keys(cfg.Inside)), Services: slices.Collect(maps.Keys(cfg.Services))}
	policy := access.Policy{Zone: zone, VMs: cfg.Directory, People: cfg.People}
	s := &Server{
		Config: cfg,
		zone:   zone,
		policy: policy,
		pages:  renderer,
		open:   map[net.Listener]struct{}{},
		quota:  quota.New(conns.Places()), // each takes a connection to a VM
		live:   newLive(),
	}
	if cfg.NoRates {
		s.quota.WithoutRates()
	}
	s.passing = newPassing()
	s.login = login.New(login.Config{
		Policy: policy, Store: cfg.Logins, Pages: renderer, Logger: cfg.Logger, Listening: s.listening,
		Many: s.standsForMany, Ended: s.live.endLogin, Apex: apexLogins{s},
	})
	if s.apex, err = s.newApex(); err != nil {
		return nil, err
	}
	s.waker = newWaker(cfg, s.answers)
	s.metrics = newMetrics()
	authority, err := ca.Open(ca.Config{Dir: cfg.Dir, Domains: []string{cfg.Domain, gateway.InternalDomain}, LeafLife: cfg.LeafLife})
	if err != nil {
		return nil, err
	}
	s.authority = authority
	if s.acme, err = s.newACME(); err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	s.conns = conns.New(conns.Places(), s.trusts, s.metrics.cutOff, cfg.Logger)
	s.proxy = proxy.New(proxy.Config{Dial: cfg.Dial, OnResponse: s.onResponse, Logger: cfg.Logger})
	base, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.web, s.redirect = s.servers(base)
	s.http3 = s.newHTTP3()
	go s.live.watch(base)
	s.Directory.Watch(s.vmChanged)
	s.removeOthers() // also those who were removed just before a crash
	s.People.Watch(s.peopleChanged)
	return s, nil
}

// RootPEM returns the certificate that clients have to trust.
func (s *Server) RootPEM() []byte { return s.authority.RootPEM() }

// URL returns the address of a VM's port, as people open it; gateway.DefaultPort gives that of the
// plain name.
func (s *Server) URL(vm gateway.VM, port uint16) string { return s.zone.URL(vm.Name, port) }

// RequestURL is the page at which who may manage the VM of a request for access answers it.
func (s *Server) RequestURL(id string) string {
	return names.Origin(s.Domain, s.Port) + pages.AnswerPath + "?id=" + id
}

// LoginURL makes a link that logs a person in, once, within 15 minutes: to the VM's plain name or, for the
// zero ID, to the domain itself. Errors: KindNotFound for a VM that does not exist, KindDenied for a person
// who may open none of its pages, or is removed.
func (s *Server) LoginURL(ctx context.Context, id gateway.ID, person gateway.Principal) (string, error) {
	if id == (gateway.ID{}) {
		return s.login.ApexLink(ctx, person)
	}
	vm, ok := s.Directory.ByID(id)
	if !ok || vm.Desired == gateway.Removed {
		return "", gateway.Errorf(gateway.KindNotFound, "the VM is removed")
	}
	return s.login.Link(ctx, vm, person)
}

// NewPass makes a link to a port, or a token, and returns the URL or the text that its holder needs.
func (s *Server) NewPass(ctx context.Context, p gateway.Pass) (held string, made gateway.Pass, err error) {
	vm, ok := s.Directory.ByID(p.VM)
	if !ok || vm.Desired == gateway.Removed {
		return "", made, gateway.Errorf(gateway.KindNotFound, "the VM is removed")
	}
	return s.login.NewPass(ctx, vm, p)
}

// Passes returns the links, or the tokens, of a VM.
func (s *Server) Passes(ctx context.Context, vm gateway.ID, kind gateway.PassKind) ([]gateway.Pass, error) {
	return s.login.Passes(ctx, vm, kind)
}

// RemovePass removes a link or a token of a VM, and ends what is open by it.
func (s *Server) RemovePass(ctx context.Context, vm gateway.ID, kind gateway.PassKind, id string) error {
	return s.login.RemovePass(ctx, vm, kind, id)
}

// Listening returns those of ports that listen in a VM now.
func (s *Server) Listening(ctx context.Context, vm gateway.VM, ports []uint16) []uint16 {
	open, _ := s.proxy.Listening(ctx, vm, ports) // an error: none
	return open
}

// Probe returns the port that the VM's plain name leads to now. It is false when nothing listens.
func (s *Server) Probe(ctx context.Context, vm gateway.VM) (uint16, bool) {
	port, err := s.proxy.Find(ctx, vm)
	return port, err == nil
}

// listening returns those ports that listen, of also and proxy.CommonPorts.
func (s *Server) listening(ctx context.Context, vm gateway.VM, also []uint16) []uint16 {
	ports := slices.Concat(proxy.CommonPorts(), also)
	slices.Sort(ports)
	open, _ := s.proxy.Listening(ctx, vm, slices.Compact(ports)) // an error: none
	return open
}

// Remove removes a VM's sessions, its links, and the requests for it.
func (s *Server) Remove(ctx context.Context, id gateway.ID) error {
	s.proxy.Remove(id)
	if err := s.login.Remove(ctx, id); err != nil {
		return fmt.Errorf("remove logins: %w", err)
	}
	return s.Requests.Hide(ctx, func(q gateway.AccessRequest) bool { return q.VM == id })
}

// tlsConfig returns a configuration that refuses names without a route. The check is in
// GetConfigForClient because a resumed session asks for no certificate. The key exchange is crypto/tls's
// choice, X25519MLKEM768 before X25519: it takes a third more CPU time per full handshake.
func (s *Server) tlsConfig() *tls.Config {
	// no certificate: alert unrecognized_name
	refuse := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: cipherSuites(),
		NextProtos:   []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if pass := s.passOn(hello.ServerName); pass != nil {
				return nil, pass
			}
			if s.acme != nil {
				if validation := s.acme.ChallengeConfig(hello); validation != nil {
					return validation, nil
				}
			}
			rt, ok := s.zone.Route(hello.ServerName, gateway.IdentityOf(hello.Conn), s.Directory)
			if !ok || rt.Custom && !s.certifiesCustom() {
				return refuse, nil
			}
			return nil, nil //nolint:nilnil // crypto/tls: use the config there is
		},
		GetCertificate: s.certificate,
	}
}

// cipherSuites are those of TLS 1.2 with forward secrecy and authenticated encryption: crypto/tls also
// offers CBC. Those of TLS 1.3 cannot be chosen.
func cipherSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}
