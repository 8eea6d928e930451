package https_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/https"
)

// endless is an app with a stream at /, and a WebSocket (which nobody reads) at /socket.
func endless(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/socket" {
		c, err := upgraded(w, r)
		if err == nil {
			_, _ = io.Copy(io.Discard, c) // until the gateway hangs up
			_ = c.Close()                 // as above
		}
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_ = http.NewResponseController(w).Flush() // the test sees whether it arrives
	<-r.Context().Done()
}

// openStream opens the stream of a page, and returns what waits for its end.
func (s *site) openStream(c *http.Client, target string) (ended func() error) {
	s.tb.Helper()
	return s.openStreamWith(c, target)
}

func (s *site) openStreamWith(c *http.Client, target string, header ...string) (ended func() error) {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, target, nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		s.tb.Fatalf("%s: %v, %v", target, res, err)
	}
	end := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close() // read to its end
		end <- errors.Join(err, errEnded)
	}()
	return func() error {
		select {
		case err := <-end:
			return err
		case <-time.After(time.Second):
			return nil
		}
	}
}

var errEnded = errors.New("the stream has ended")

// openSocket opens a WebSocket, and returns what waits for its end.
func (s *site) openSocket(host, cookie string) (ended func() error) {
	s.tb.Helper()
	return s.openSocketWith(host, "Cookie", cookie)
}

func (s *site) openSocketWith(host string, header ...string) (ended func() error) {
	s.tb.Helper()
	c, err := handshake(s, s.addr, host)
	if err != nil {
		s.tb.Fatal(err)
	}
	fmt.Fprintf(c, "GET /socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", host)
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(c, "%s: %s\r\n", header[i], header[i+1])
	}
	fmt.Fprint(c, "\r\n")
	answers := bufio.NewReader(c)
	res, err := http.ReadResponse(answers, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		s.tb.Fatalf("upgrade: %v, %v", res, err)
	}
	_ = res.Body.Close() // a 101 has none
	return func() error {
		_ = c.SetReadDeadline(time.Now().Add(time.Second)) // open until now
		_, err := answers.ReadByte()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		return err
	}
}

func TestWhatIsOpenEndsWithItsPermission(t *testing.T) {
	t.Parallel()
	private := func(m *gateway.VM) error {
		m.Shares = m.WithShare(gateway.Share{Port: 8080, Visibility: gateway.Private})
		return nil
	}
	for name, tt := range map[string]struct {
		change        func(*gateway.VM) error
		stranger, ann bool // still open
		self, shop    bool
		publicOfOther bool
	}{
		"made private": {private, false, true, true, false, true},
		"other port": {func(m *gateway.VM) error {
			m.Shares = m.WithShare(gateway.Share{Port: 9090, Visibility: gateway.Public})
			return nil
		}, true, true, true, true, true},
		"removed":       {func(m *gateway.VM) error { m.Desired = gateway.Removed; return nil }, false, false, false, false, true},
		"another name":  {func(m *gateway.VM) error { m.Name = "diary"; return nil }, false, false, false, false, true},
		"to be stopped": {func(m *gateway.VM) error { m.Desired = gateway.Stopped; return nil }, true, true, true, true, true}, // its guest ends them
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			blog, shop := s.vm("blog"), s.vm("shop", public(8080)...)
			s.app(blog, 8080, http.HandlerFunc(endless))
			s.app(shop, 8080, http.HandlerFunc(endless))
			ann := s.client()
			s.login(ann, blog)
			s.handoffTo(ann, "8080-blog", "/")
			if _, err := s.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Shares = public(8080); return nil }); err != nil {
				t.Fatal(err)
			}
			check := func(who string, ended func() error, open bool) {
				if err := ended(); (err == nil) != open {
					t.Errorf("%s: %v; want open: %t", who, err, open)
				}
			}
			stranger, socket := s.openStream(s.client(), s.url("8080-blog")), s.openSocket("8080-blog.lodge.localhost", "")
			tunnel, _ := dialWS2(t, s, s.url("8080-blog")+"/socket")
			owners := s.openStream(ann, s.url("8080-blog"))
			self, sibling := s.openStream(s.tap(blog), s.url("8080-blog")), s.openStream(s.tap(shop), s.url("8080-blog"))
			other := s.openStream(s.client(), s.url("8080-shop"))
			if _, err := s.dir.Update(t.Context(), blog.ID, tt.change); err != nil {
				t.Fatal(err)
			}
			check("a stranger's stream", stranger, tt.stranger)
			check("a stranger's WebSocket", socket, tt.stranger)
			check("one of HTTP/2", tunnel.ended, tt.stranger)
			check("the owner", owners, tt.ann)
			check("the VM itself", self, tt.self)
			check("another VM", sibling, tt.shop)
			check("another VM's page", other, tt.publicOfOther)
		})
	}
}

func TestWhatIsOpenAtADomainEndsWithIt(t *testing.T) {
	t.Parallel()
	s := newSiteWithAuthority(t)
	blog := s.vm("blog", public(0, 8080)...)
	s.app(blog, 80, http.HandlerFunc(endless))
	s.app(blog, 8080, http.HandlerFunc(endless))
	s.setDomains(blog, gateway.Domain{Name: "example.com"}, gateway.Domain{Name: "example.org"}, gateway.Domain{Name: "example.net"})
	removed, moved := s.openStream(s.client(), s.at("example.com")), s.openStream(s.client(), s.at("example.org"))
	kept := s.openStream(s.client(), s.at("example.net"))
	s.setDomains(blog, gateway.Domain{Name: "example.org", Port: 8080}, gateway.Domain{Name: "example.net"})
	if removed() == nil || moved() == nil {
		t.Error("a stream outlived its domain")
	}
	if err := kept(); err != nil {
		t.Errorf("at another domain: %v", err)
	}
}

// status is that of the response to a GET, whose body may be endless.
func (s *site) status(c *http.Client, target string, header ...string) int {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, target, nil)
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
	_ = res.Body.Close() // unread
	return res.StatusCode
}

// cookie is that of c's session at a host.
func (s *site) cookie(c *http.Client, host string) string {
	s.tb.Helper()
	cookies := c.Jar.Cookies(mustParse(s.tb, s.url(host)))
	if len(cookies) != 1 {
		s.tb.Fatalf("cookies: %v", cookies)
	}
	return cookies[0].Name + "=" + cookies[0].Value
}

func (s *site) logout(c *http.Client, host string, header ...string) answer {
	s.tb.Helper()
	return s.do(c, http.MethodPost, s.url(host)+"/.lodge/logout", nil, header...)
}

func TestLogoutEndsTheLoginAtAllNamesOfTheVM(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	for _, vm := range []gateway.VM{blog, shop} {
		s.app(vm, 80, http.HandlerFunc(endless))
	}
	s.app(blog, 8080, http.HandlerFunc(endless))
	ann, phone := s.client(), s.client() // one person, two browsers
	s.login(ann, blog)
	s.handoffTo(ann, "8080-blog", "/")
	s.login(ann, shop)
	s.login(phone, blog)
	plain, port := s.openStream(ann, s.url("blog")), s.openStream(ann, s.url("8080-blog"))
	socket := s.openSocket("8080-blog.lodge.localhost", s.cookie(ann, "8080-blog"))
	other, others := s.openStream(ann, s.url("shop")), s.openStream(phone, s.url("blog"))
	kept := s.cookie(ann, "8080-blog")

	if a := s.get(ann, s.url("8080-blog")+"/.lodge/logout", browser()...); a.StatusCode != 200 || plain() != nil {
		t.Errorf("the page with the button: %s", a.Status)
	}
	if a := s.logout(ann, "8080-blog", "Origin", s.url("shop")); a.StatusCode != 403 || plain() != nil {
		t.Errorf("by another VM's page: %s", a.Status)
	}
	if a := s.logout(ann, "8080-blog", "Origin", s.url("8080-blog")); a.StatusCode != 200 || len(ann.Jar.Cookies(mustParse(t, s.url("8080-blog")))) != 0 {
		t.Errorf("logout: %s", a.Status)
	}
	for name, ended := range map[string]func() error{"plain name": plain, "port": port, "WebSocket": socket} {
		if ended() == nil {
			t.Errorf("%s is still open", name)
		}
	}
	if other() != nil || others() != nil {
		t.Error("the logout ended another login")
	}
	for _, host := range []string{"blog", "8080-blog"} {
		if status := s.status(ann, s.url(host)); status != 401 {
			t.Errorf("%s afterwards: %d", host, status)
		}
	}
	if status := s.status(s.client(), s.url("8080-blog"), "Cookie", kept); status != 401 {
		t.Errorf("with the old cookie: %d", status)
	}
	if a := s.logout(s.client(), "blog"); a.StatusCode != 200 {
		t.Errorf("without a session: %s", a.Status)
	}
}

// endingLogins has logins that end soon.
type endingLogins struct {
	*siteLogins
	until time.Time
}

func (l endingLogins) LookSecret(ctx context.Context, key gateway.SecretKey, now time.Time) (gateway.Secret, error) {
	secret, err := l.siteLogins.LookSecret(ctx, key, now)
	var grant map[string]any
	if err == nil && key.Kind == "session" {
		if err = json.Unmarshal([]byte(secret.Data), &grant); err == nil {
			grant["until"] = l.until.Unix()
			edited, _ := json.Marshal(grant) // of what was JSON
			secret.Data = string(edited)
		}
	}
	return secret, err
}

func TestWhatIsOpenEndsWithItsSession(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(4 * time.Second)
	s := newSite(t, func(c *https.Config) { c.Logins = endingLogins{c.Logins.(*siteLogins), until} })
	blog := s.vm("blog", public(8080)...)
	s.app(blog, 80, http.HandlerFunc(endless))
	s.app(blog, 8080, http.HandlerFunc(endless))
	ann := s.client()
	s.login(ann, blog)
	stream, socket := s.openStream(ann, s.url("blog")), s.openSocket("blog.lodge.localhost", s.cookie(ann, "blog"))
	stranger := s.openStream(s.client(), s.url("8080-blog"))
	for time.Now().Before(until) { // it may not end before
		if err := stream(); err != nil && time.Now().Before(until.Add(-time.Second)) {
			t.Fatalf("before its session: %v", err)
		} else if err != nil {
			break
		}
	}
	if err := socket(); err == nil {
		t.Error("a WebSocket outlived its session")
	}
	if stranger() != nil {
		t.Error("a stranger's stream ended")
	}
	if status := s.status(ann, s.url("blog")); status != 401 {
		t.Errorf("after the end: %d", status)
	}
}
