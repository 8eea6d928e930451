// Package acme obtains certificates from a public authority (RFC 8555), by certmagic, and keeps and
// renews them.
//
// With Config.Records, Run obtains a wildcard for the domain by DNS-01, in the background. All other
// names are ordered during the first handshake for them (TLS-ALPN-01, HTTP-01), if Config.Owner
// allows it: a bounded number at a time, per client and in all, for at most 30 s, and not again soon
// after a failure. A name that has a certificate never waits for the authority.
//
// This package never opens a public port: the listeners of package https answer the challenges, and
// the Responder's are opened by its caller. Certificates and the account's key are in a KV; nothing
// that was acknowledged is lost when the process is killed.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	wire "github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// DefaultDirectory is Let's Encrypt.
const DefaultDirectory = certmagic.LetsEncryptProductionCA

// Config is what a Source needs. Domain, Email, Directory, Owner, KV and Logger are required.
type Config struct {
	Domain    string         // gets the wildcard
	Email     string         // of the account
	Directory string         // URL of the authority
	Roots     *x509.CertPool // that the authority's own certificate is checked with; nil: the system's
	KeyID     string         // external account binding (RFC 8555 §7.3.4), if the authority needs one
	MACKey    string         // its key, in base64url
	Profile   string         // of the certificates, such as "shortlived"; empty: the authority's default
	NoARI     bool           // ignores when the authority wants to renew (RFC 9773)
	Records   Records        // proves the domain, for a wildcard; nil: there is none
	KV        KV             // keeps certificates and the account's key
	Logger    *slog.Logger

	// Owner reports whether a name may have a certificate, and what the name belongs to: no owner
	// gets more than maxNamesPerOwner. It must answer from memory.
	Owner func(name string) (owner string, ok bool)

	OrderLimit time.Duration // how long one order may take; 0 means 30 s
	CheckEvery time.Duration // how often certificates are checked for renewal; 0 means 10 min
}

// Source provides certificates. It is safe for concurrent use.
type Source struct {
	Config
	log     *zap.Logger
	cache   *certmagic.Cache
	dns     *certmagic.Config // for the domain and its wildcard; nil without Records
	web     *certmagic.Config // for all other names
	storage *storage
	nothing net.Listener // see newWebIssuer

	draining context.Context // of all orders; ends with Drain
	drain    context.CancelFunc
	stop     sync.Once     // of Close
	stopped  chan struct{} // closed after it

	flight  singleflight.Group         // handshakes for a new name share one order
	pending *limit.Limit[gateway.Peer] // handshakes that wait for an order
	active  chan struct{}              // has a place for each order under way
	failed  *failures                  // names not to order again yet
	rarely  rate.Sometimes             // limits the log: strangers cause orders
	mu      sync.Mutex
	owners  map[string]string // of the names with a certificate that was ordered in a handshake
	trouble error             // of the last attempt to obtain the wildcard
}

// unthrottled switches off certmagic's own limit, 10 orders in 10 s for the process, which lets 20
// of 30 new names at once fail. The limits of a Source take its place.
var unthrottled sync.Once //nolint:gochecknoglobals // guards two variables of certmagic

// New returns a Source with the certificates in cfg.KV. Close it when done.
func New(ctx context.Context, cfg Config) (*Source, error) {
	unthrottled.Do(func() { certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = 0, 0 })
	if cfg.OrderLimit == 0 {
		cfg.OrderLimit = 30 * time.Second
	}
	s := &Source{
		Config: cfg, log: bridge(cfg.Logger), storage: newStorage(cfg.KV),
		pending: limit.New[gateway.Peer](maxPendingPerPeer, maxPending), active: make(chan struct{}, maxActive),
		failed: newFailures(), owners: map[string]string{}, stopped: make(chan struct{}), rarely: rate.Sometimes{Interval: time.Minute},
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	var err error
	if s.nothing, err = listenForNothing(ctx); err != nil {
		return nil, err
	}
	s.cache = certmagic.NewCache(certmagic.CacheOptions{GetConfigForCert: s.configFor, RenewCheckInterval: cfg.CheckEvery, Logger: s.log})
	s.web = s.newConfig(s.webIssuer)
	if cfg.Records != nil {
		s.dns = s.newConfig(s.dnsIssuer)
	}
	if err := s.load(ctx); err != nil {
		s.Close(ctx)
		return nil, fmt.Errorf("load certificates: %w", err)
	}
	return s, nil
}

func (s *Source) newConfig(issuer func(*certmagic.Config) certmagic.ACMEIssuer) *certmagic.Config {
	config := certmagic.New(s.cache, certmagic.Config{
		Storage:          s.storage,
		ReusePrivateKeys: true,
		DisableARI:       s.NoARI,
		OCSP:             certmagic.OCSPConfig{DisableStapling: true},
		Logger:           s.log,
	})
	config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(config, issuer(config))}
	return config
}

func (s *Source) webIssuer(*certmagic.Config) certmagic.ACMEIssuer {
	at := s.nothing.Addr().(*net.TCPAddr)
	template := certmagic.ACMEIssuer{
		CA: s.Directory, TestCA: s.Directory, Email: s.Email, Agreed: true, Profile: s.Profile, TrustedRoots: s.Roots, Logger: s.log,
		// certmagic binds no address that something listens at already
		ListenHost: at.IP.String(), AltHTTPPort: at.Port, AltTLSALPNPort: at.Port,
		DisableDistributedSolvers: true,
	}
	if s.KeyID != "" {
		template.ExternalAccount = &wire.EAB{KeyID: s.KeyID, MACKey: s.MACKey}
	}
	return template
}

func (s *Source) dnsIssuer(config *certmagic.Config) certmagic.ACMEIssuer {
	template := s.webIssuer(config)
	template.DNS01Solver = solver{s.Records, s.draining}
	return template
}

// listenForNothing listens on a loopback port and closes what arrives there.
func listenForNothing(ctx context.Context) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for certmagic: %w", err)
	}
	l = gateway.Lasting(l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			_ = c.Close() // nothing was sent
		}
	}()
	return l, nil
}

// configFor is certmagic's GetConfigForCert.
func (s *Source) configFor(c certmagic.Certificate) (*certmagic.Config, error) {
	if s.dns != nil && s.provenByDNS(c.Names[0]) {
		return s.dns, nil
	}
	return s.web, nil
}

func (s *Source) provenByDNS(name string) bool { return name == s.Domain || name == s.wildcard() }

func (s *Source) wildcard() string { return "*." + s.Domain }

// load reads all certificates from the KV, so that no handshake does.
func (s *Source) load(ctx context.Context) error {
	prefix := certmagic.StorageKeys.CertsPrefix(s.web.Issuers[0].IssuerKey())
	sites, err := s.storage.List(ctx, prefix, false)
	if err != nil && !isMissing(err) {
		return err
	}
	for _, site := range sites {
		name := strings.Replace(strings.TrimPrefix(site, prefix+"/"), "wildcard_", "*", 1)
		config := s.web
		if s.dns != nil && s.provenByDNS(name) {
			config = s.dns
		} else {
			owner, ok := s.Owner(name)
			s.owners[name] = owner
			if !ok {
				continue // Run removes it
			}
		}
		if _, err := config.CacheManagedCertificate(ctx, name); err != nil {
			s.Logger.Warn("certificate not loaded", "host", name, "err", err)
		}
	}
	return nil
}

// Cached returns the certificate for a name, from memory.
func (s *Source) Cached(name string) (*tls.Certificate, bool) {
	var best *certmagic.Certificate
	for _, subject := range [2]string{name, wildcardOf(name)} {
		for _, c := range s.cache.AllMatchingCertificates(subject) {
			if c.Names[0] == subject && !c.Expired() && (best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
				best = &c
			}
		}
		if best != nil {
			return &best.Certificate, true
		}
	}
	return nil, false
}

func wildcardOf(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return "*." + parent
}

// Wildcard returns the certificate for all names directly below the domain. Without one the error
// has the reason, as far as it is known.
func (s *Source) Wildcard() (*x509.Certificate, error) {
	if c, ok := s.Cached(s.wildcard()); ok {
		return c.Leaf, nil
	}
	if s.Records == nil {
		return nil, gateway.Errorf(gateway.KindNotFound, "no challenge by DNS is configured")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble != nil {
		return nil, s.trouble
	}
	return nil, gateway.Errorf(gateway.KindUnavailable, "the certificate is not there yet")
}
