// Package oidctest runs the example server of zitadel/oidc, a provider of OpenID Connect, as a process
// on a loopback port. It is built from the module that .lint/zitadel.mod pins.
package oidctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"lodge/gateway/gatewaytest"
)

// Password is that of all users.
const Password = "verysecure"

// User is one who can log in at the provider.
type User struct {
	ID, Username, Password, Email string
	EmailVerified                 bool
}

// Provider is a running server. Its issuer has a slash at the end, its ID tokens have no address: that
// is in the user info.
type Provider struct {
	Issuer           string
	ClientID, Secret string

	cmd *exec.Cmd
}

// program is built once per test binary.
var program = sync.OnceValues(func() (string, error) { return gatewaytest.Tool("zitadel", "server") }) //nolint:gochecknoglobals // a build is worth sharing among all tests

// Start starts a provider that sends browsers back to redirect. Its users are ann and bob, the latter
// with an address that is not verified. It ends with the test.
func Start(tb testing.TB, redirect string) *Provider {
	tb.Helper()
	path, err := program()
	gatewaytest.Must(tb, err)
	users, err := json.Marshal(map[string]User{
		"1": {"1", "ann", Password, "Ann@Example.org", true},
		"2": {"2", "bob", Password, "bob@example.org", false},
	})
	gatewaytest.Must(tb, err)
	file := filepath.Join(tb.TempDir(), "users.json")
	gatewaytest.Must(tb, os.WriteFile(file, users, 0o600))
	port := freePort(tb)
	p := &Provider{Issuer: "http://localhost:" + port + "/", ClientID: "web", Secret: "secret"}
	p.cmd = exec.Command(path) //nolint:noctx // it outlives the test's context, and is killed below
	p.cmd.Env = append(os.Environ(), "PORT="+port, "USERS_FILE="+file, "REDIRECT_URI="+redirect)
	var out bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = &out, &out
	gatewaytest.Must(tb, p.cmd.Start())
	tb.Cleanup(func() {
		p.Stop()
		if tb.Failed() {
			tb.Logf("provider:\n%s", out.Bytes()[max(0, out.Len()-8000):])
		}
	})
	gatewaytest.WaitFor(tb, "the provider", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port) //nolint:noctx // refused or accepted at once
		if err == nil {
			_ = c.Close() // it is up
		}
		return err == nil
	})
	return p
}

// Stop ends the process. Connections to it are refused from then on.
func (p *Provider) Stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // it was killed
}

var loginID = regexp.MustCompile(`name="id" value="([^"]+)"`)

// Login does what a person's browser does at the provider: it opens at, logs in, and returns where the
// provider sends it back to.
func (p *Provider) Login(tb testing.TB, at, username string) *url.URL {
	tb.Helper()
	jar, err := cookiejar.New(nil)
	gatewaytest.Must(tb, err)
	var back *url.URL
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host != mustHost(p.Issuer) {
			back = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := browser.Get(at) //nolint:noctx // a test
	gatewaytest.Must(tb, err)
	page, err := io.ReadAll(res.Body)
	gatewaytest.Must(tb, err)
	_ = res.Body.Close() // read to its end
	id := loginID.FindSubmatch(page)
	if id == nil {
		tb.Fatalf("%s: %s\n%s", at, res.Status, page)
	}
	form := url.Values{"id": {string(id[1])}, "username": {username}, "password": {Password}}
	res, err = browser.PostForm(p.Issuer+"login/username", form) //nolint:noctx // a test
	gatewaytest.Must(tb, err)
	_ = res.Body.Close() // not needed
	if back == nil {
		tb.Fatalf("the provider did not send the browser back: %s", res.Status)
	}
	return back
}

func mustHost(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(fmt.Sprint("issuer: ", err)) // made above
	}
	return u.Host
}

// freePort returns a port that is free and stays so in all likelihood: the kernel gives those above it to
// connections and to the listeners of other tests (net.ipv4.ip_local_port_range).
func freePort(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		l, err := net.Listen("tcp", ":"+port) //nolint:gosec,noctx // where the provider listens; closed at once
		if err == nil {
			_ = l.Close() // nothing was accepted
			return port
		}
	}
	tb.Fatal("no port is free")
	return ""
}
