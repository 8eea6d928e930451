package https_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
)

func TestPagesForPeopleAndPrograms(t *testing.T) {
	t.Parallel()
	k, _ := newButtons(t)
	s := k.site
	blog := s.vm("blog", public(8080)...)
	off, err := s.dir.Update(t.Context(), s.vm("off", public(0)...).ID, func(m *gateway.VM) error { m.Desired = gateway.Stopped; return nil })
	if err != nil {
		t.Fatal(err)
	}
	hangs := s.vm("hangs", public(0)...)
	s.mu.Lock()
	s.hanging["hangs"] = true
	s.mu.Unlock()
	junk := s.vm("junk", public(0)...)
	s.app(junk, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = c.Write([]byte("this is not HTTP\r\n\r\n")) // the gateway sees it
			_ = c.Close()                                      // as above
		}
	}))
	s.app(blog, 9090, echo("tool"))
	ann := s.client()
	s.login(ann, blog)
	s.login(ann, off)
	tests := []struct {
		name, host string
		client     *http.Client
		want       int
		has, not   string
	}{
		{"private", "blog", s.client(), 401, "lodge open blog", "stopped"},
		{"stopped, owner", "off", ann, 503, "lodge start off", ""},
		{"stopped, stranger", "off", s.client(), 503, "is stopped", "lodge start"},
		{"silent, owner", "blog", ann, 502, "port 9090", ""},
		{"silent, stranger", "8080-blog", s.client(), 502, "Nothing listens on port 8080", "port 9090"},
		{"no answer", hangs.Name, s.client(), 503, "does not answer yet", ""},
		{"junk", "junk", s.client(), 502, "Bad response from the app", ""},
	}
	for _, tt := range tests {
		page := s.get(tt.client, s.url(tt.host), "Accept", "text/html")
		if page.StatusCode != tt.want || !strings.Contains(page.body, tt.has) || tt.not != "" && strings.Contains(page.body, tt.not) {
			t.Errorf("%s: %s:\n%s", tt.name, page.Status, page.body)
		}
		if !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") || page.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", tt.name, page.Header)
		}
		api := s.get(tt.client, s.url(tt.host), "Accept", "application/json")
		var e gateway.Error
		if err := json.Unmarshal([]byte(api.body), &e); err != nil || e.Msg == "" || e.Kind == "" || api.StatusCode != tt.want {
			t.Errorf("%s, JSON: %s %q %v", tt.name, api.Status, api.body, err)
		}
		text := s.get(tt.client, s.url(tt.host))
		if strings.Contains(text.body, "<") || text.StatusCode != tt.want {
			t.Errorf("%s, text: %s %q", tt.name, text.Status, text.body)
		}
		if wait := page.Header.Get("Retry-After"); (tt.want == 503) && wait == "" {
			t.Errorf("%s: no Retry-After", tt.name)
		}
	}
	if a := s.get(s.client(), s.url("blog")); a.Header.Get("Www-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate (RFC 9110 §15.5.2)")
	}
}

func TestRootPageShowsNothingOfVMs(t *testing.T) {
	s := newSite(t)
	s.vm("secretive", public(0)...)
	root := strings.Replace(s.url("x"), "//x.", "//", 1)
	a := s.get(s.client(), root+"/", "Accept", "text/html")
	if a.StatusCode != 200 || strings.Contains(a.body, "secretive") || !strings.Contains(a.body, "lodge open") {
		t.Errorf("%s: %s", a.Status, a.body)
	}
	if a := s.get(s.client(), root+"/x"); a.StatusCode != 404 {
		t.Errorf("elsewhere: %s", a.Status)
	}
}

func TestSecretsAreNeitherStoredNorLogged(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 8080, echo("port"))
	c := s.client()
	link := s.link(blog)
	token := mustParse(t, link).Query().Get("token")
	s.get(c, link, browser()...)
	session := s.useLink(c, link).Cookies()[0].Value
	at := s.url("8080-blog") + "/"
	a := s.get(c, at, browser()...)
	secrets := []string{token, session}
	for range 3 {
		for _, cookie := range a.Cookies() {
			secrets = append(secrets, cookie.Value)
		}
		at, a = s.follow(c, at, a)
		secrets = append(secrets, mustParse(t, at).Query().Get("code"))
	}
	s.useLink(c, link)                                                                  // refused
	s.get(s.client(), s.url("9090-blog"), "Cookie", "__Host-lodge="+session)            // refused
	s.get(s.client(), s.url("blog")+"/.lodge/callback?code="+session, "Cookie", "x=y")  // refused
	s.get(s.client(), s.url("blog")+"/?token="+token, "Authorization", "Bearer "+token) // refused
	var stored []byte
	for _, file := range []string{"lodge.db", "lodge.db-wal"} {
		content, err := os.ReadFile(filepath.Join(s.state, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		stored = append(stored, content...)
	}
	for _, secret := range secrets {
		raw, err := base64.RawURLEncoding.DecodeString(secret)
		if err != nil || len(raw) == 0 {
			continue // another cookie of the way, deleted
		}
		hash := sha256.Sum256(raw)
		if strings.Contains(s.log.String(), secret) || bytes.Contains(stored, []byte(secret)) || bytes.Contains(stored, raw) {
			t.Errorf("%q is in the log or in the store", secret)
		}
		if secret == session && !bytes.Contains(stored, []byte(hex.EncodeToString(hash[:]))) {
			t.Error("the session's hash is not found either: the test reads the wrong files")
		}
	}
}
