package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway/api"
	"lodge/gateway/domains/domainstest"
	"lodge/https/acme/acmetest"
)

// publicConfig is the configuration of a host with a domain of its own. It needs the URL of the ACME
// server and the file of its root certificate.
const publicConfig = `
domain = "lodge.example"
owner = "owner@lodge.example"
[acme]
email = "owner@lodge.example"
directory = "%s"
root_file = "%s"
challenge = "responder"
responder.port = 5354
`

// TestPublicDomain: a host with a domain of its own has its certificates from a public authority. Two
// VMs have custom domains beside it. Domains, ports, sessions and cookies of one VM never open the
// other's.
func TestPublicDomain(t *testing.T) {
	harness.NeedVMs(t)
	s := startPublic(t)
	c := s.client()
	harness.Eventually(t, "the wildcard certificate is there", time.Minute, func() error { return trusted(c, "https://alpha.lodge.example/") })

	if r := s.h.TryLodge(t, "domain", "add", "beta", "www.alpha.example"); r.Code == 0 || !strings.Contains(r.Stderr, "CNAME") {
		t.Errorf("beta gets the domain whose record leads to alpha: %d %s", r.Code, r.Text())
	}
	for _, vm := range []*harness.VM{s.alpha, s.beta} {
		s.h.Lodge(t, "domain", "add", vm.Name, "www."+vm.Name+".example", "--port", "9000")
		s.denied(t, c, "https://www."+vm.Name+".example/")
	}
	s.h.Lodge(t, "share", "alpha", "9000", "public")
	for _, host := range []string{"www.alpha.example", "9000-alpha.lodge.example"} {
		if status, body := get(t, c, "https://"+host+"/"); status != http.StatusOK || !strings.HasPrefix(body, "page of alpha at "+host) {
			t.Errorf("%s: %d %s", host, status, body)
		}
	}
	s.denied(t, c, "https://www.beta.example/")
	s.denied(t, s.login(t, s.alpha), "https://www.beta.example/")
	s.denied(t, s.login(t, s.alpha), "https://9000-beta.lodge.example/")
	s.misdirected(t, c)
	s.cookiesStay(t)

	if r := s.h.TryLodge(t, "domain", "add", "beta", "www.alpha.example"); r.Code == 0 || !strings.Contains(r.Stderr, "alpha") {
		t.Errorf("beta gets alpha's domain: %d %s", r.Code, r.Text())
	}
	s.h.Lodge(t, "domain", "rm", "www.alpha.example")
	s.gone(t, "www.alpha.example")
	s.h.Lodge(t, "rm", "--yes", "beta")
	s.gone(t, "www.beta.example")
	if list := harness.JSON[[]api.Domain](t, s.h, "domain", "ls"); len(list) != 0 {
		t.Errorf("domains of VMs that are gone: %+v", list)
	}
}

// startPublic starts a host and its two VMs, each with an app on port 9000.
func startPublic(t *testing.T) *suite {
	t.Helper()
	h := harness.New(t)
	h.Race = true
	h.UseImages(t)
	h.Domain = "lodge.example"
	h.Replace(t, "/etc/resolv.conf", "nameserver 127.0.0.1\n")
	zone := domainstest.StartAt(t, 53, "lodge.example. A 127.0.0.1", "*.lodge.example. A 127.0.0.1",
		"www.alpha.example. CNAME alpha.lodge.example.", "www.beta.example. CNAME beta.lodge.example.")
	zone.Delegate("_acme-challenge.lodge.example", "127.0.0.1:5354")
	pebble := acmetest.Start(t, acmetest.Config{HTTPPort: 80, TLSPort: 443, DNS: zone.Addr})
	root := filepath.Join(h.Dir, "acme-root.pem")
	if err := os.WriteFile(root, pebble.RootPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	h.Config = fmt.Sprintf(publicConfig, pebble.Directory, root)
	s := &suite{h: h, alpha: h.VM("alpha"), beta: h.VM("beta"), libvirt: h.StartLibvirt(t), roots: pebble.Issuers}
	s.daemon = h.StartDaemon(t)
	var both sync.WaitGroup
	for _, vm := range []*harness.VM{s.alpha, s.beta} {
		both.Go(func() { h.TryLodge(t, "new", vm.Name, "--wait") }) // what follows fails without it
	}
	both.Wait()
	for _, vm := range []*harness.VM{s.alpha, s.beta} {
		vm.PutFile(t, "/tmp/cookies.py", "testdata/cookies.py", "644")
		vm.Run(t, "sudo systemd-run --quiet --unit=app python3 /tmp/cookies.py "+vm.Name+`
			until curl -s -o /dev/null http://127.0.0.1:9000/; do sleep 0.2; done`)
	}
	return s
}

// trusted requests a page whose certificate must be of an authority that c trusts.
func trusted(c *http.Client, page string) error {
	res, err := c.Get(page) //nolint:noctx // c has a limit
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// denied requests a page that is not the client's to see.
func (s *suite) denied(t *testing.T, c *http.Client, page string) {
	t.Helper()
	if status, body := get(t, c, page); status != http.StatusUnauthorized || strings.Contains(body, "page of") {
		t.Errorf("%s: %d, want 401\n%s", page, status, body)
	}
}

// misdirected asks on a connection for one VM's domain for another name.
func (s *suite) misdirected(t *testing.T, c *http.Client) {
	t.Helper()
	for _, host := range []string{"www.beta.example", "9000-beta.lodge.example", "9000-alpha.lodge.example", "alpha.example"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://www.alpha.example/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if status, body := do(t, c, r); status != http.StatusMisdirectedRequest || strings.Contains(body, "page of") {
			t.Errorf("%s at www.alpha.example: %d, want 421\n%s", host, status, body)
		}
	}
}

// cookiesStay: cookies that one VM's app sets reach neither the other VM nor its own other domain.
func (s *suite) cookiesStay(t *testing.T) {
	t.Helper()
	s.h.Lodge(t, "share", "beta", "9000", "public")
	c := s.client()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Jar = jar
	hosts := []string{"www.alpha.example", "9000-alpha.lodge.example", "www.beta.example", "9000-beta.lodge.example"}
	for _, host := range hosts {
		if status, body := get(t, c, "https://"+host+"/"); status != http.StatusOK || !strings.Contains(body, "cookies: none") {
			t.Errorf("%s has cookies of others: %d %s", host, status, body)
		}
	}
	for _, host := range hosts { // positive control
		name := "alpha"
		if strings.Contains(host, "beta") {
			name = "beta"
		}
		if _, body := get(t, c, "https://"+host+"/"); !strings.Contains(body, "cookies: from-"+name+"=1\n") {
			t.Errorf("%s has not its own cookies: %s", host, body)
		}
	}
	s.h.Lodge(t, "share", "beta", "9000", "private")
}

// gone: a domain leads nowhere, within a second.
func (s *suite) gone(t *testing.T, host string) {
	t.Helper()
	harness.Eventually(t, host+" is gone", time.Second, func() error {
		res, err := s.client().Get("https://" + host + "/") //nolint:noctx // the client has a limit
		if err != nil {
			return nil // the handshake is refused
		}
		_ = res.Body.Close() // the status is enough
		return errors.New(res.Status)
	})
}
