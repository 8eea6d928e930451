package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/issuer"
	"lodge/gateway/metadata"
)

// lodged is an assembled daemon without libvirtd. Its web and the connections of its VMs are on
// loopback.
type lodged struct {
	*parts
	state    *state
	cfg      Config
	vms      map[string]gateway.VM
	stranger *http.Client // who trusts the host's certificates
}

func newLodged(t *testing.T) *lodged {
	t.Helper()
	web, err := listenTCP(t.Context(), nil, "", netip.MustParseAddrPort("127.0.0.1:0"))
	gatewaytest.Must(t, err)
	d := &lodged{cfg: defaultConfig(), vms: map[string]gateway.VM{}}
	log := new(gatewaytest.Log).Logger()
	dir := t.TempDir()
	d.cfg.StateDir, d.cfg.RunDir = filepath.Join(dir, "state"), filepath.Join(dir, "run")
	d.cfg.HTTPSPort = web.Addr().(*net.TCPAddr).Port
	state, err := openState(t.Context(), d.cfg)
	gatewaytest.Must(t, err)
	d.state = state
	t.Cleanup(func() { gatewaytest.Must(t, state.close()) })
	for _, name := range []string{"alpha", "beta"} {
		d.vms[name], err = state.directory.Create(t.Context(), gateway.VM{
			Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running, Ready: true, Incarnation: 1,
		})
		gatewaytest.Must(t, err)
	}
	d.parts, err = assemble(d.cfg, state, nil, log)
	gatewaytest.Must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = d.web.Serve(web) }) // ends by Shutdown
	t.Cleanup(func() {
		gatewaytest.Must(t, d.shutdown(log))
		serving.Wait()
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(d.web.RootPEM())
	d.stranger = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", web.Addr().String())
		},
	}}
	t.Cleanup(d.stranger.CloseIdleConnections)
	return d
}

// ask makes a request from a VM, over its own connection, as on its tap.
func (d *lodged) ask(t *testing.T, vm gateway.VM, method, path string) (int, string) {
	t.Helper()
	tap, err := listenTCP(t.Context(), nil, "", netip.MustParseAddrPort("127.0.0.1:0"))
	gatewaytest.Must(t, err)
	go d.guestHTTP.Serve(gatewaytest.Listener(tap, vm.Identity)) // ends with the listener
	defer tap.Close()
	guest := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", tap.Addr().String())
	}}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://169.254.169.254"+path, nil)
	gatewaytest.Must(t, err)
	r.Header.Set("Lodge-Request", "1")
	resp, err := guest.Do(r)
	gatewaytest.Must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	gatewaytest.Must(t, err)
	return resp.StatusCode, string(body)
}

// Each VM gets a token on its own tap. A relying party, which knows the issuer's URL alone, sees which
// VM it is.
func TestVMsProveThemselves(t *testing.T) {
	d := newLodged(t)
	ctx := oidc.ClientContext(t.Context(), d.stranger)
	provider, err := oidc.NewProvider(ctx, fmt.Sprintf("https://lodge.localhost:%d", d.cfg.HTTPSPort))
	gatewaytest.Must(t, err)
	verifier := provider.Verifier(&oidc.Config{ClientID: "https://service.example"})
	for name, vm := range d.vms {
		status, body := d.ask(t, vm, http.MethodPut, "/lodge/v1/token?audience=https://service.example")
		var answer metadata.IdentityToken
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, status, body)
		}
		token, err := verifier.Verify(ctx, answer.Token)
		gatewaytest.Must(t, err)
		if token.Subject != issuer.Subject(vm.ID) || !strings.HasSuffix(token.Subject, vm.ID.String()) {
			t.Errorf("%s is %s", name, token.Subject)
		}
	}
	for path, want := range map[string]int{ // on names of VMs, the paths are the VMs' own
		"lodge.localhost/.well-known/jwks.json":                 http.StatusOK,
		"lodge.localhost/.well-known/":                          http.StatusNotFound,
		"alpha.lodge.localhost/.well-known/jwks.json":           http.StatusUnauthorized,
		"lodge.localhost/.well-known/openid-configuration?x=y":  http.StatusOK,
		"lodge.localhost/.well-known/openid-configuration/more": http.StatusNotFound,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+path, nil)
		gatewaytest.Must(t, err)
		resp, err := d.stranger.Do(r)
		gatewaytest.Must(t, err)
		resp.Body.Close()
		if resp.StatusCode != want || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
	}
}

func TestIssuerURL(t *testing.T) {
	cfg := defaultConfig()
	cfg.Domain = "vm.example"
	if got := issuerURL(cfg); got != "https://vm.example" {
		t.Errorf("got %s", got)
	}
	cfg.HTTPSPort = 8443
	if got := issuerURL(cfg); got != "https://vm.example:8443" {
		t.Errorf("got %s", got)
	}
}
