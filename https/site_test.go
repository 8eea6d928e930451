package https_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/https"
)

const owner = "ann@example.org"

// site is a Server on a loopback port, with VMs whose ports are loopback servers.
type site struct {
	tb     testing.TB
	server *https.Server
	dir    *gateway.Directory
	db     *store.Store
	people *people.Book
	asks   *people.Requests
	domain string
	addr   string // of Serve
	plain  string // of ServeRedirect
	state  string // directory of the store
	logins *siteLogins
	kv     *store.KV
	log    *syncBuffer
	roots  *x509.CertPool

	mu       sync.Mutex
	backends map[string]string // "<vm>:<port>" → loopback address
	hanging  map[string]bool   // VMs that answer no SYN
	dials    int
}

func newSite(tb testing.TB, change ...func(*https.Config)) *site {
	tb.Helper()
	return newSiteWith(tb, func(_ *site, c *https.Config) {
		for _, f := range change {
			f(c)
		}
	})
}

// newSiteWith makes a site whose configuration may depend on its addresses.
func newSiteWith(tb testing.TB, change func(*site, *https.Config)) *site {
	tb.Helper()
	state := tb.TempDir()
	db, err := store.Open(tb.Context(), filepath.Join(state, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() }) // after Shutdown: the test is over
	s := &site{
		tb: tb, domain: "lodge.localhost", state: state, logins: &siteLogins{Logins: db.Logins()},
		db: db, kv: db.KV(), log: &syncBuffer{}, backends: map[string]string{}, hanging: map[string]bool{}, roots: x509.NewCertPool(),
	}
	dir, err := gateway.OpenDirectory(tb.Context(), db)
	if err != nil {
		tb.Fatal(err)
	}
	s.dir = dir
	if s.people, err = people.Open(tb.Context(), db.Shared(), owner); err != nil {
		tb.Fatal(err)
	}
	if s.asks, err = people.OpenRequests(tb.Context(), db.Shared(), time.Now); err != nil {
		tb.Fatal(err)
	}
	web, plain := listen(tb), listen(tb)
	s.addr, s.plain = web.Addr().String(), plain.Addr().String()
	cfg := https.Config{
		Domain: s.domain, Port: web.Addr().(*net.TCPAddr).Port, Dir: filepath.Join(state, "ca"),
		Directory: dir, People: s.people, Logins: s.logins, Sessions: db.WebSessions(), Passkeys: db.Passkeys(), Kept: db, Requests: s.asks, Dial: s.dial,
		Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	change(s, &cfg)
	s.domain = cfg.Domain
	if s.server, err = https.New(cfg); err != nil {
		tb.Fatal(err)
	}
	s.roots.AppendCertsFromPEM(s.server.RootPEM())
	s.serve(func() error { return s.server.Serve(web) }, func() error { return s.server.ServeRedirect(plain) })
	return s
}

func (s *site) serve(all ...func() error) {
	var serving sync.WaitGroup
	for _, f := range all {
		serving.Go(func() {
			if err := f(); err != nil {
				s.tb.Errorf("serve: %v", err)
			}
		})
	}
	s.tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = s.server.Shutdown(ctx) // connections of the test may still be open
		serving.Wait()
	})
}

// vm makes a running VM.
func (s *site) vm(name string, shares ...gateway.Share) gateway.VM {
	s.tb.Helper()
	m, err := s.dir.Create(s.tb.Context(), gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running, Ready: true, Shares: shares,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return m
}

func public(ports ...uint16) []gateway.Share {
	var shares []gateway.Share
	for _, p := range ports {
		shares = append(shares, gateway.Share{Port: p, Visibility: gateway.Public})
	}
	return shares
}

// app serves h at a port of a VM.
func (s *site) app(m gateway.VM, port uint16, h http.Handler) *httptest.Server {
	backend := httptest.NewServer(h)
	s.tb.Cleanup(backend.Close)
	s.backend(m, port, backend.Listener.Addr().String())
	return backend
}

func (s *site) backend(m gateway.VM, port uint16, addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backends[fmt.Sprintf("%s:%d", m.Name, port)] = addr
}

// dial is Config.Dial: real loopback connections, refused for real where the VM has nothing.
func (s *site) dial(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error) {
	s.mu.Lock()
	addr, ok := s.backends[fmt.Sprintf("%s:%d", m.Name, port)]
	hangs := s.hanging[m.Name]
	s.dials++
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	if !ok {
		addr = "127.0.0.1:1" // nothing listens there
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// client is a browser without fetch metadata: it trusts the root, keeps cookies and follows no
// redirect.
func (s *site) client() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.clientVia(s.addr, jar)
}

func (s *site) clientVia(addr string, jar http.CookieJar) *http.Client {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
	}
	s.tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// tap is a client inside a VM.
func (s *site) tap(m gateway.VM) *http.Client {
	l := s.listenOnTap(m)
	return s.clientVia(l.Addr().String(), nil)
}

// listenOnTap serves connections that come from m.
func (s *site) listenOnTap(m gateway.VM) net.Listener {
	l := listen(s.tb)
	go s.server.Serve(gatewaytest.Listener(l, m.Identity))
	return l
}

func (s *site) url(host string) string {
	_, port, _ := net.SplitHostPort(s.addr)
	return "https://" + host + "." + s.domain + ":" + port
}

type answer struct {
	*http.Response
	body string
}

func (s *site) do(c *http.Client, method, target string, body io.Reader, header ...string) answer {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, target, body)
	if err != nil {
		s.tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	return answer{res, string(got)}
}

func (s *site) get(c *http.Client, target string, header ...string) answer {
	s.tb.Helper()
	return s.do(c, http.MethodGet, target, nil, header...)
}

// login logs c in as the owner to a VM's plain name by a fresh link.
func (s *site) login(c *http.Client, m gateway.VM) {
	s.tb.Helper()
	s.loginAs(c, m, s.people.Owner())
}

func (s *site) loginAs(c *http.Client, m gateway.VM, who people.Person) {
	s.tb.Helper()
	if a := s.useLink(c, s.linkFor(m, who)); a.StatusCode != http.StatusSeeOther {
		s.tb.Fatalf("login: %s: %s", a.Status, a.body)
	}
}

// person adds somebody.
func (s *site) person(mail string) people.Person {
	s.tb.Helper()
	p, _, err := s.people.Add(s.tb.Context(), mail, "")
	gatewaytest.Must(s.tb, err)
	return p
}

// change changes a VM.
func (s *site) change(m gateway.VM, change func(*gateway.VM)) {
	s.tb.Helper()
	_, err := s.dir.Update(s.tb.Context(), m.ID, func(m *gateway.VM) error { change(m); return nil })
	gatewaytest.Must(s.tb, err)
}

func (s *site) link(m gateway.VM) string {
	s.tb.Helper()
	return s.linkFor(m, s.people.Owner())
}

func (s *site) linkFor(m gateway.VM, who people.Person) string {
	s.tb.Helper()
	link, err := s.server.LoginURL(s.tb.Context(), m.ID, who.ID)
	if err != nil {
		s.tb.Fatal(err)
	}
	return link
}

// useLink does what the button of the link's page does.
func (s *site) useLink(c *http.Client, link string) answer {
	s.tb.Helper()
	u, err := url.Parse(link)
	if err != nil {
		s.tb.Fatal(err)
	}
	form := url.Values{"token": {u.Query().Get("token")}}.Encode()
	u.RawQuery = ""
	return s.do(c, http.MethodPost, u.String(), strings.NewReader(form), "Content-Type", "application/x-www-form-urlencoded",
		"Origin", "https://"+u.Host, "Accept", "text/html")
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	var config net.ListenConfig
	l, err := config.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() }) // most are closed already
	return l
}

// echo responds with the request line and the headers, as text.
func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("App", name)
		fmt.Fprintf(w, "app=%s\nhost=%s\nuri=%s\n", name, r.Host, r.RequestURI)
		_ = r.Header.Write(w)
	})
}

// syncBuffer is a log that tests can read.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// siteLogins are the real ones, with a clock that a test can put ahead.
type siteLogins struct {
	*store.Logins
	ahead atomic.Int64 // time.Duration
}

func (l *siteLogins) ChangeSecret(ctx context.Context, key gateway.SecretKey, now time.Time, change func(*gateway.Secret) (bool, error)) (gateway.Secret, error) {
	return l.Logins.ChangeSecret(ctx, key, now.Add(time.Duration(l.ahead.Load())), change)
}

func (l *siteLogins) LookSecret(ctx context.Context, key gateway.SecretKey, now time.Time) (gateway.Secret, error) {
	return l.Logins.LookSecret(ctx, key, now.Add(time.Duration(l.ahead.Load())))
}

// rootFile is the root certificate as curl reads it.
func (s *site) rootFile() string {
	file := filepath.Join(s.tb.TempDir(), "root.crt")
	if err := os.WriteFile(file, s.server.RootPEM(), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return file
}
