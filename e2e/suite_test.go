// Package e2e is the suite that runs Lodge with real parts: libvirtd, lodged, lodge, two VMs, curl,
// swaks, Chromium and S3 tools.
//
//	make e2e
//	go test ./e2e -v -args -vm                             # the same, with the base image in /var/lib/lodge/images
//	go test ./e2e -v -run 'TestLodge/(web|mail)' -args -vm # makes both VMs, runs two of the steps
package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/https/acme/acmetest"
	"lodge/vmhost/libvirt/libvirttest"
)

var imageName = flag.String("image", gateway.DefaultImage, "base image of the VMs")

func TestMain(m *testing.M) {
	if err := acmetest.Build(); err != nil { // before there is no network
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	harness.Main(m)
}

// suite is what the steps of TestLodge share.
type suite struct {
	h       *harness.Host
	libvirt *libvirttest.Daemon
	daemon  *harness.Daemon
	roots   *x509.CertPool
	rootPEM string // path of the authority's root

	alpha *harness.VM // carries the example page
	beta  *harness.VM
}

// TestLodge makes two VMs, and tests what they, the outside and the host can and cannot do to each
// other. Steps that stop, break or remove a VM make their own: none depends on another, and each can
// be run alone with -run.
func TestLodge(t *testing.T) {
	harness.NeedVMs(t)
	s := start(t)
	type step struct {
		name string
		run  func(*testing.T)
	}
	run := func(steps ...step) {
		for _, step := range steps {
			t.Run(step.name, step.run)
		}
	}
	var chains sync.WaitGroup // side by side: while one computes, another waits for answers and minutes
	chains.Go(func() {
		run(step{"questions", s.questions}, step{"web", s.web}, step{"ports", s.ports}, step{"streams", s.streams},
			step{"browser", s.browser}, step{"mail", s.mail}, step{"imap", s.imap}, step{"sending", s.sending}, step{"storage", s.storage},
			step{"neighbours-mail-and-files", s.neighboursThings}, step{"pages-inside", s.pagesInside},
			step{"people", s.people})
	})
	chains.Go(func() {
		run(step{"twins", s.twins}, step{"broken-guest", s.brokenGuest}, step{"siblings", s.siblings},
			step{"template-has-no-secrets", s.templateHasNoSecrets}, step{"removed", s.removed}, step{"changes", s.changes})
	})
	chains.Go(func() {
		run(step{"reboot", s.reboot}, step{"impostors", s.impostors}, step{"stop-and-start", s.stopAndStart},
			step{"wake-on-request", s.wakeOnRequest}, step{"undo", s.undo})
	})
	chains.Wait()
	run(step{"forwards", s.forwards}, step{"daemon-killed", s.daemonKilled}, step{"killed-while-made", s.killedWhileMade},
		step{"libvirtd-killed", s.libvirtdKilled}, step{"log", s.logHasNoSecrets}) // each but the last ends a daemon
}

// start makes both VMs at the same time and waits until they serve.
func start(t *testing.T) *suite {
	t.Helper()
	h := harness.New(t)
	h.Race = true
	h.UseImages(t)
	s := &suite{h: h, alpha: h.VM("alpha"), beta: h.VM("beta"), libvirt: h.StartLibvirt(t)}
	begun := time.Now()
	s.daemon = h.StartDaemon(t)
	t.Logf("lodged is ready after %s", time.Since(begun).Round(time.Millisecond))
	s.trustRoot(t)
	var both sync.WaitGroup
	both.Go(func() {
		r := h.TryLodge(t, "new", "alpha", "--image", *imageName, "--user-data", "../docs/examples/hello/user-data.yaml", "--wait")
		t.Logf("alpha:\n%s", r.Text())
	})
	both.Go(func() {
		r := h.TryLodge(t, "new", "beta", "--image", *imageName, "--wait")
		t.Logf("beta:\n%s", r.Text())
	})
	both.Wait()
	h.Lodge(t, "wait", "beta")
	h.Lodge(t, "wait", "alpha", "--for", "http")
	t.Logf("both VMs are up after %s", time.Since(begun).Round(time.Second))
	return s
}

// fresh makes a VM that is removed with the test.
func (s *suite) fresh(t *testing.T, name string, flags ...string) *harness.VM {
	t.Helper()
	s.h.Lodge(t, append([]string{"new", name, "--wait", "--image", *imageName}, flags...)...)
	vm := s.h.VM(name)
	t.Cleanup(vm.Remove)
	t.Cleanup(func() { vm.KeepConsole(t) })
	return vm
}

func (s *suite) trustRoot(t *testing.T) {
	t.Helper()
	if r := s.h.Run(t, nil, "update-ca-certificates"); r.Code != 0 { // fills the sandbox's own /etc/ssl/certs
		t.Fatal(r.Text())
	}
	pem, err := s.h.Client().RootPEM(t.Context())
	if err != nil {
		t.Fatalf("get the root certificate: %v", err)
	}
	s.rootPEM = filepath.Join(s.h.Dir, "root.pem")
	if err := os.WriteFile(s.rootPEM, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	if !s.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the root certificate is none:\n%s", pem)
	}
}

// each runs f for two VMs, with the other as its neighbour.
func each(t *testing.T, a, b *harness.VM, f func(t *testing.T, me, other *harness.VM)) {
	t.Helper()
	t.Run(a.Name, func(t *testing.T) { f(t, a, b) })
	t.Run(b.Name, func(t *testing.T) { f(t, b, a) })
}

// both is each for alpha and beta, in parallel.
func (s *suite) both(t *testing.T, f func(t *testing.T, me, other *harness.VM)) {
	t.Helper()
	t.Run("both", func(t *testing.T) { // returns once its parallel tests have ended
		each(t, s.alpha, s.beta, func(t *testing.T, me, other *harness.VM) {
			t.Parallel()
			f(t, me, other)
		})
	})
}

// client is a web client outside that trusts the authority alone. All names lead to the host's
// loopback address.
func (s *suite) client() *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				return dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// contains fails the test when text lacks a part.
func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: no %q in\n%s", what, part, text)
		}
	}
}

// lacks fails the test when text has a part.
func lacks(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%s: there is %q in\n%s", what, part, text)
		}
	}
}
