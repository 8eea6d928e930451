// Package acmetest runs Pebble, the ACME server that Let's Encrypt's developers test clients with,
// and its DNS server, as processes on loopback ports.
//
// Both are built from the modules that .lint/pebble.mod pins. Requests go through a proxy, which a
// test can make slow, or let refuse orders.
package acmetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// Config sets where Pebble validates names.
type Config struct {
	HTTPPort int           // of HTTP-01
	TLSPort  int           // of TLS-ALPN-01
	DNS      string        // server to ask, host:port; empty: its own, which leads all names to 127.0.0.1
	AskAgain bool          // makes clients ask about renewal (RFC 9773) at each check
	Life     time.Duration // of certificates; 0 means 90 days. The profile "shortlived" has 6 days.
}

// Pebble is a running server.
type Pebble struct {
	Directory string         // URL
	Roots     *x509.CertPool // of its own certificate
	RootPEM   []byte         // the same
	Issuers   *x509.CertPool // of the certificates that it issues
	DNSAdmin  string         // URL of the DNS server's administration, unless Config.DNS is set

	Stall    atomic.Bool  // answers nothing from now on
	Stalled  atomic.Int64 // requests that wait because of it
	Refuse   atomic.Bool  // orders get 429
	Orders   atomic.Int64 // how many were requested
	Requests atomic.Int64

	tb  testing.TB
	cmd *exec.Cmd
}

// Start builds and starts Pebble. It ends with the test.
func Start(tb testing.TB, cfg Config) *Pebble {
	tb.Helper()
	p := &Pebble{tb: tb, Roots: x509.NewCertPool(), Issuers: x509.NewCertPool()}
	programs, err := built()
	if err != nil {
		tb.Fatal(err)
	}
	if cfg.DNS == "" {
		cfg.DNS = p.startDNS(programs.dns)
	}
	if cfg.Life == 0 {
		cfg.Life = 90 * 24 * time.Hour
	}
	api, admin := freeAddr(tb), freeAddr(tb)
	dir := tb.TempDir()
	trusted := p.certificate(dir)
	p.cmd = p.run(programs.pebble, "-config", writeConfig(tb, dir, cfg, api, admin), "-dnsserver", cfg.DNS)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}}
	p.Issuers.AppendCertsFromPEM(p.fetch(client, "https://"+admin+"/roots/0"))
	p.proxy(api, trusted, cfg.AskAgain)
	return p
}

// Stop ends the process. Connections to it are refused from then on.
func (p *Pebble) Stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // it was killed
}

// Build builds the two programs, unless the build cache has them. Tests in a sandbox, which has no
// network for the modules, call it outside first.
func Build() error {
	_, err := built()
	return err
}

// programs are the paths of Pebble and its DNS server.
type programs struct{ pebble, dns string }

// built builds the programs once per test binary, into Go's cache: the next binary finds them there.
var built = sync.OnceValues(build) //nolint:gochecknoglobals // a build is worth sharing among all tests

func build() (p programs, err error) {
	if p.pebble, err = gatewaytest.Tool("pebble", "pebble"); err != nil {
		return p, err
	}
	p.dns, err = gatewaytest.Tool("pebble", "pebble-challtestsrv")
	return p, err
}

// startDNS starts a DNS server that leads all names to 127.0.0.1.
func (p *Pebble) startDNS(program string) string {
	addr, admin := freeAddr(p.tb), freeAddr(p.tb)
	p.run(program, "-dnsserver", addr, "-management", admin, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	p.DNSAdmin = "http://" + admin
	gatewaytest.WaitFor(p.tb, "the DNS server", func() bool { return reachable(p.tb, admin) })
	return addr
}

func (p *Pebble) run(program string, args ...string) *exec.Cmd {
	p.tb.Helper()
	cmd := exec.Command(program, args...) //nolint:noctx // it outlives the test's context, and is killed below
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	p.tb.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		if p.tb.Failed() {
			p.tb.Logf("%s:\n%s", filepath.Base(program), out.Bytes()[max(0, out.Len()-8000):])
		}
	})
	return cmd
}

func writeConfig(tb testing.TB, dir string, cfg Config, api, admin string) string {
	tb.Helper()
	profile := func(life time.Duration) map[string]any {
		return map[string]any{"description": "for tests", "validityPeriod": int(life / time.Second)}
	}
	content, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": api, "managementListenAddress": admin,
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": cfg.HTTPPort, "tlsPort": cfg.TLSPort, "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": profile(cfg.Life), "shortlived": profile(6 * 24 * time.Hour)},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// certificate makes the certificate of Pebble's API.
func (p *Pebble) certificate(dir string) *x509.CertPool {
	p.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		p.tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.tb.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, content := range map[string][]byte{"cert.pem": public, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			p.tb.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(public)
	return pool
}

// proxy makes the front that p.Directory leads to.
func (p *Pebble) proxy(api string, trusted *x509.CertPool, askAgain bool) {
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: api})
			r.Out.Host = r.In.Host // Pebble makes its URLs of it
		},
		ModifyResponse: func(r *http.Response) error {
			if askAgain && r.Header.Get("Retry-After") != "" {
				r.Header.Set("Retry-After", "0")
			}
			return nil
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}},
	}
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Requests.Add(1)
		if p.Stall.Load() {
			_, _ = io.Copy(io.Discard, r.Body) // with its body read, the server sees the client go
			p.Stalled.Add(1)
			<-r.Context().Done()
			p.Stalled.Add(-1)
			return
		}
		if r.URL.Path == "/order-plz" {
			p.Orders.Add(1)
			if p.Refuse.Load() {
				w.Header().Set("Content-Type", "application/problem+json")
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = fmt.Fprint(w, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders","status":429}`) // the client has gone
				return
			}
		}
		pass.ServeHTTP(w, r)
	}))
	p.tb.Cleanup(func() { front.CloseClientConnections(); front.Close() })
	p.Roots.AddCert(front.Certificate())
	p.RootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	p.Directory = front.URL + "/dir"
}

func (p *Pebble) fetch(client *http.Client, at string) (body []byte) {
	p.tb.Helper()
	gatewaytest.WaitFor(p.tb, "pebble", func() bool {
		r, err := http.NewRequestWithContext(p.tb.Context(), http.MethodGet, at, nil)
		if err != nil {
			return false
		}
		res, err := client.Do(r)
		if err != nil {
			return false
		}
		defer res.Body.Close() //nolint:errcheck // it was read
		body, err = io.ReadAll(res.Body)
		return err == nil && res.StatusCode == http.StatusOK
	})
	return body
}

// freeAddr returns an address that nothing listens at now.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was accepted
	return l.Addr().String()
}

func reachable(tb testing.TB, addr string) bool {
	tb.Helper()
	c, err := new(net.Dialer).DialContext(tb.Context(), "tcp", addr)
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was sent
	return true
}
