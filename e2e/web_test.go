package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"lodge/e2e/harness"
)

// owner is the person that a one-time link logs in.
const owner = "owner@lodge.localhost"

// get returns status and body.
func get(t *testing.T, c *http.Client, address string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, req)
}

func do(t *testing.T, c *http.Client, req *http.Request) (int, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return resp.StatusCode, string(body)
}

// login uses a one-time link as the page's button does, and returns a client with the session.
func (s *suite) login(t *testing.T, vm *harness.VM) *http.Client {
	t.Helper()
	c := s.client()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Jar = jar
	link := harness.JSON[struct{ URL string }](t, s.h, "open", vm.Name).URL
	if status, body := get(t, c, link); status != http.StatusOK {
		t.Fatalf("%s: %d %s", link, status, body)
	}
	if status, body := press(t, c, link); status != http.StatusSeeOther && status != http.StatusFound {
		t.Fatalf("log in at %s: %d %s", link, status, body)
	}
	return c
}

// press posts the form of a login page.
func press(t *testing.T, c *http.Client, link string) (int, string) {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"token": {u.Query().Get("token")}}
	u.RawQuery = ""
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(t, c, req)
}

// web: alpha's page is private, opens with a one-time link, and can be made public and private
// again.
func (s *suite) web(t *testing.T) {
	page := s.alpha.Info(t).URL + "/"
	if status, body := get(t, s.client(), page); status != http.StatusUnauthorized {
		t.Errorf("a stranger gets %d:\n%s", status, body)
	}
	c := s.login(t, s.alpha)
	status, body := get(t, c, page)
	if status != http.StatusOK {
		t.Fatalf("the owner gets %d:\n%s", status, body)
	}
	contains(t, "alpha's page", body, owner)
	link := harness.JSON[struct{ URL string }](t, s.h, "open", "alpha").URL
	first, _ := press(t, s.client(), link)
	second, _ := press(t, s.client(), link)
	if first >= 400 || second < 400 {
		t.Errorf("a one-time link used twice: %d, then %d", first, second)
	}
	if status, body := get(t, c, s.beta.Info(t).URL+"/"); status != http.StatusUnauthorized {
		t.Errorf("alpha's session opens beta's page: %d\n%s", status, body)
	}
	s.curl(t, page)
	s.unknownNames(t)
	s.h.Lodge(t, "share", "alpha", "public")
	if status, _ := get(t, s.client(), page); status != http.StatusOK {
		t.Errorf("a stranger gets %d after share public", status)
	}
	s.h.Lodge(t, "share", "alpha", "private")
	if status, _ := get(t, s.client(), page); status != http.StatusUnauthorized {
		t.Errorf("a stranger gets %d after share private", status)
	}
}

// curl trusts the authority only with its root.
func (s *suite) curl(t *testing.T, page string) {
	t.Helper()
	if r := s.h.Run(t, nil, "curl", "-sS", page); r.Code != 60 {
		t.Errorf("curl without the root ended with %d, want 60 (the certificate is not trusted): %s", r.Code, r.Text())
	}
	r := s.h.Run(t, nil, "curl", "-sS", "--cacert", s.rootPEM, "-w", "%{http_code} %{ssl_verify_result}", "-o", "/dev/null", page)
	if r.Stdout != "401 0" {
		t.Errorf("curl with the root got %s", r.Text())
	}
	r = s.h.Run(t, nil, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", strings.Replace(page, "https:", "http:", 1))
	if !strings.HasPrefix(r.Stdout, "30") || !strings.HasSuffix(r.Stdout, " "+page) {
		t.Errorf("plain http got %s", r.Text())
	}
}

// unknownNames below the domain look like private ones. Others are refused in the handshake, and all
// get 421 when the handshake was for another name.
func (s *suite) unknownNames(t *testing.T) {
	t.Helper()
	for _, name := range []string{"s3.lodge.internal", "example.org", ""} {
		c, err := tls.Dial("tcp", "127.0.0.1:443", &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec,noctx // nothing should answer
		if err == nil {
			t.Errorf("the handshake for %q gave a certificate for %v", name, c.ConnectionState().PeerCertificates[0].DNSNames)
			_ = c.Close() // the test has failed already
		}
	}
	if status, body := get(t, s.client(), "https://nosuch."+s.h.Domain+"/"); status != http.StatusUnauthorized {
		t.Errorf("a name that no VM has gets %d:\n%s", status, body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.alpha.Info(t).URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"nosuch." + s.h.Domain, "beta." + s.h.Domain, "example.org"} {
		req.Host = host
		if status, body := do(t, s.client(), req); status != http.StatusMisdirectedRequest {
			t.Errorf("Host %s behind alpha's handshake gets %d:\n%s", host, status, body)
		}
	}
}

// ports: each port of a VM has a name and a visibility of its own.
func (s *suite) ports(t *testing.T) {
	s.beta.PutFile(t, "/home/lodge/web.py", "testdata/web.py", "644")
	s.beta.Run(t, `sudo systemd-run --quiet --unit=web python3 /home/lodge/web.py
		until curl -s -o /dev/null http://127.0.0.1:9000/; do sleep 0.2; done`)
	port := func(n int) string { return fmt.Sprintf("https://%d-beta.%s/", n, s.h.Domain) }
	for _, n := range []int{9000, 9001} {
		if status, body := get(t, s.client(), port(n)); status != http.StatusUnauthorized {
			t.Errorf("a stranger gets %d at port %d:\n%s", status, n, body)
		}
	}
	s.h.Lodge(t, "share", "beta", "9000", "public")
	status, body := get(t, s.client(), port(9000))
	if want := "9000-beta." + s.h.Domain + " None None\n"; status != http.StatusOK || body != want {
		t.Errorf("a stranger gets %d %q at the shared port, want %q", status, body, want)
	}
	for _, address := range []string{port(9001), port(22), s.beta.Info(t).URL + "/"} {
		if status, _ := get(t, s.client(), address); status != http.StatusUnauthorized {
			t.Errorf("sharing port 9000 opened %s: %d", address, status)
		}
	}
	s.h.Lodge(t, "share", "beta", "9001", "public")
	status, body = get(t, s.client(), port(9001))
	if status != http.StatusBadGateway && status != http.StatusServiceUnavailable {
		t.Errorf("a port at which nothing listens gives %d", status)
	}
	contains(t, "the page of a port at which nothing listens", body, "9001")
	s.h.Lodge(t, "share", "beta", "9001", "private")
	for _, bad := range []string{"0", "65536", "http", "-1"} {
		if r := s.h.TryLodge(t, "share", "beta", bad, "public"); r.Code != 2 || r.Stderr == "" {
			t.Errorf("lodge share beta %s public ended with %d: %s", bad, r.Code, r.Text())
		}
	}
}

// streams: answers and uploads are not buffered, and an upgraded connection passes bytes both ways.
func (s *suite) streams(t *testing.T) {
	base := fmt.Sprintf("https://9000-beta.%s", s.h.Domain)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); line != "one\n" {
		t.Fatalf("first line of the stream: %q, %v", line, err)
	}
	get(t, s.client(), base+"/go") // the guest writes the second line only after this
	if line, err := lines.ReadString('\n'); line != "two\n" {
		t.Fatalf("second line of the stream: %q, %v", line, err)
	}
	upload, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/", strings.NewReader(strings.Repeat("x", 3<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if status, body := do(t, s.client(), upload); status != http.StatusOK || body != "3145728 bytes\n" {
		t.Errorf("upload: %d %q", status, body)
	}
	s.upgrade(t, "9000-beta."+s.h.Domain)
}

func (s *suite) upgrade(t *testing.T, host string) {
	t.Helper()
	c, err := tls.Dial("tcp", "127.0.0.1:443", &tls.Config{ServerName: host, RootCAs: s.roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}) //nolint:noctx // it has a deadline
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", host) // seen by the read
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v %v", resp, err)
	}
	for _, line := range []string{"hello\n", "again\n"} {
		_, _ = io.WriteString(c, line) // seen by the read
		if echo, err := in.ReadString('\n'); echo != line {
			t.Fatalf("sent %q, got %q, %v", line, echo, err)
		}
	}
}
