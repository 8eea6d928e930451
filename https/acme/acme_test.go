package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
	"lodge/https/acme/acmetest"
)

const domain = "vm.example"

// front answers handshakes and port 80 by a Source, as package https does.
type front struct {
	tb        testing.TB
	web, http net.Listener

	mu         sync.Mutex
	source     *Source
	challenged func() // called before a challenge is answered
}

func newFront(tb testing.TB) *front {
	tb.Helper()
	f := &front{tb: tb, web: listen(tb), http: listen(tb)}
	plain := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.challenge()
		if !f.get().ServeChallenge(w, r) {
			w.WriteHeader(http.StatusNotFound)
		}
	})}
	secure := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.NotFoundHandler(), TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			config := f.get().ChallengeConfig(h)
			if config != nil {
				f.challenge()
			}
			return config, nil
		},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return f.get().Order(h, h.ServerName) },
	}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = plain.Serve(f.http) })            // ends by Close
	serving.Go(func() { _ = secure.ServeTLS(f.web, "", "") }) // as above
	tb.Cleanup(func() {
		_ = plain.Close()  // the test is over
		_ = secure.Close() // as above
		serving.Wait()
	})
	return f
}

func (f *front) get() *Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.source
}

func (f *front) challenge() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.challenged != nil {
		f.challenged()
	}
}

func (f *front) onChallenge(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.challenged = do
}

// open makes the Source that f uses from now on.
func (f *front) open(p *acmetest.Pebble, change ...func(*Config)) *Source {
	f.tb.Helper()
	cfg := Config{
		Domain: domain, Email: "ann@example.org", Directory: p.Directory, Roots: p.Roots, KV: &mapKV{},
		Logger: slog.New(slog.NewTextHandler(f.tb.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
		Owner:  func(name string) (string, bool) { return "blog", strings.HasSuffix(name, ".blog."+domain) },
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(f.tb.Context(), cfg)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.tb.Cleanup(func() { s.Close(context.Background()) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.source = s
	return s
}

func (f *front) pebble(change ...func(*acmetest.Config)) *acmetest.Pebble {
	f.tb.Helper()
	cfg := acmetest.Config{HTTPPort: port(f.http), TLSPort: port(f.web)}
	for _, c := range change {
		c(&cfg)
	}
	return acmetest.Start(f.tb, cfg)
}

// handshake returns the leaf that f serves for a name.
func (f *front) handshake(p *acmetest.Pebble, name string) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: p.Issuers, MinVersion: tls.VersionTLS12}}
	c, err := dialer.DialContext(f.tb.Context(), "tcp", f.web.Addr().String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() }) // most are closed already
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func TestThirtyNewNamesAtOnceAllSucceed(t *testing.T) {
	f := newFront(t)
	p := f.pebble()
	f.open(p)
	var asking sync.WaitGroup
	for i := range 30 {
		asking.Go(func() {
			name := fmt.Sprintf("n%d.blog.%s", i, domain)
			if _, err := f.handshake(p, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	asking.Wait()
}

// TestEachChallengeSuffices: the authority reaches one of the two ports alone.
func TestEachChallengeSuffices(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*acmetest.Config){
		"TLS-ALPN-01": func(c *acmetest.Config) { c.HTTPPort = 1 },
		"HTTP-01":     func(c *acmetest.Config) { c.TLSPort = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			p := f.pebble(change)
			f.open(p)
			// certmagic has the challenges of all Sources of a process in one map, by name
			if _, err := f.handshake(p, strings.ToLower(name)+".blog."+domain); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNamesThatAreNotAllowedCauseNoOrder(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	s := f.open(p)
	if _, err := f.handshake(p, "example.org"); err == nil || p.Requests.Load() != 0 {
		t.Errorf("%v after %d requests", err, p.Requests.Load())
	}
	for i := range maxNamesPerOwner {
		if err := s.claim(fmt.Sprintf("n%d.blog.%s", i, domain), "blog"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.handshake(p, "more-notallowed.blog."+domain); err == nil || p.Requests.Load() != 0 {
		t.Errorf("one name more than an owner may have: %v after %d requests", err, p.Requests.Load())
	}
}

// TestOutage: names that have a certificate are served while the authority refuses, is silent or is
// gone, and after a restart. A name that failed is not ordered again at once.
func TestOutage(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	kv := &mapKV{}
	quick := func(c *Config) { c.KV, c.OrderLimit = kv, 10*time.Second }
	f.open(p, quick)
	const have = "have-outage.blog." + domain
	if _, err := f.handshake(p, have); err != nil {
		t.Fatal(err)
	}
	for _, outage := range []struct {
		name  string
		begin func()
	}{
		{"refuses", func() { p.Refuse.Store(true) }},
		{"silent", func() { p.Refuse.Store(false); p.Stall.Store(true) }},
		{"gone", func() { p.Stall.Store(false); p.Stop() }},
	} {
		outage.begin()
		name := outage.name
		if name == "silent" { // the order ends by its own limit, which the rest need not wait for
			f.open(p, quick, func(c *Config) { c.OrderLimit = 200 * time.Millisecond })
		} else {
			f.open(p, quick)
		}
		fresh := name + ".blog." + domain
		if _, err := f.handshake(p, fresh); err == nil {
			t.Errorf("%s: a new name got a certificate", name)
		}
		before := p.Requests.Load()
		if _, err := f.handshake(p, fresh); err == nil || p.Requests.Load() != before {
			t.Errorf("%s: %v after %d further requests to the authority", name, err, p.Requests.Load()-before)
		}
		if _, err := f.handshake(p, have); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble(func(c *acmetest.Config) { c.Life = 20 * time.Second })
	f.open(p, func(c *Config) { c.CheckEvery, c.Profile = 200*time.Millisecond, "default" }) // without one, Pebble takes any
	first, err := f.handshake(p, "any-renewal.blog."+domain)
	if err != nil {
		t.Fatal(err)
	}
	gatewaytest.Eventually(t, func() error {
		leaf, err := f.handshake(p, "any-renewal.blog."+domain)
		if err == nil && leaf.SerialNumber.Cmp(first.SerialNumber) == 0 {
			err = errors.New("the certificate is the first one")
		}
		return err
	})
}

func TestProfile(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	f.open(p, func(c *Config) { c.Profile = "shortlived" })
	leaf, err := f.handshake(p, "any-profile.blog."+domain)
	if err != nil {
		t.Fatal(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 7*24*time.Hour {
		t.Errorf("valid for %v", life)
	}
}

// TestCrashBetweenTheWritesOfACertificate: certmagic stores a value to try the storage, the account,
// then the certificate.
func TestCrashBetweenTheWritesOfACertificate(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	for stop := range 6 {
		kv := &mapKV{crash: true, writes: stop}
		f.open(p, func(c *Config) { c.KV = kv })
		name := fmt.Sprintf("n%d.blog.%s", stop, domain)
		_, _ = f.handshake(p, name) // fails at the write where the crash is
		kv.recover()                // the next start
		f.open(p, func(c *Config) { c.KV = kv })
		if _, err := f.handshake(p, name); err != nil {
			t.Errorf("crash after %d writes: %v", stop, err)
		}
	}
}

func TestCertificatesOfRemovedNamesAreRemoved(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	kv := &mapKV{}
	f.open(p, func(c *Config) { c.KV = kv })
	if _, err := f.handshake(p, "any-removed.blog."+domain); err != nil {
		t.Fatal(err)
	}
	s := f.open(p, func(c *Config) { c.KV, c.Owner = kv, func(string) (string, bool) { return "", false } })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) }) // nil when ctx ends
	defer running.Wait()
	defer cancel()
	gatewaytest.WaitFor(t, "the certificate is removed", func() bool {
		keys, err := kv.List(t.Context(), keyPrefix+"certificates/")
		return err == nil && len(keys) == 0
	})
	if _, ok := s.Cached("any-removed.blog." + domain); ok {
		t.Error("the certificate is in memory")
	}
}
