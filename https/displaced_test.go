package https_test

import (
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A login, or a session, that makes room for another one of its person ends as a removed one does: with
// what is open by it.
func TestWhatIsOpenEndsWithADisplacedLogin(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"login", "session"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			blog := s.vm("blog")
			s.app(blog, 80, http.HandlerFunc(endless))
			bob, eve := s.person("bob@example.org"), s.person("eve@example.org")
			s.change(blog, func(m *gateway.VM) {
				m.Grants = []gateway.Grant{{To: bob.ID, Level: gateway.View}, {To: eve.ID, Level: gateway.View}}
			})
			first, others := s.client(), s.client()
			s.loginAs(first, blog, bob)
			s.loginAs(others, blog, eve)
			stream, socket := s.openStream(first, s.url("blog")), s.openSocket("blog.lodge.localhost", s.cookieOf(first, s.url("blog")))
			kept := s.openStream(others, s.url("blog"))
			for i := range gateway.MaxSecretsOfPerson - 1 {
				key := gateway.SecretKey{Kind: kind}
				binary.BigEndian.PutUint32(key.Hash[:], uint32(i)*0x9e3779b1) // spread, as hashes are
				_, err := s.db.Logins().PutSecret(t.Context(), key, gateway.Secret{VM: blog.ID, Person: bob.ID, Expires: time.Now().Add(1000 * time.Hour)})
				gatewaytest.Must(t, err)
			}
			if err := stream(); err != nil {
				t.Fatalf("below the limit: %v", err)
			}
			s.loginAs(s.client(), blog, bob)
			if stream() == nil || socket() == nil {
				t.Error("something is still open")
			}
			if status := s.status(first, s.url("blog")); status != 401 {
				t.Errorf("afterwards: %d", status)
			}
			if err := kept(); err != nil {
				t.Errorf("another person's stream: %v", err)
			}
			if n := strings.Count(s.log.String(), "event=login.ended person=bob@example.org"); (n == 1) != (kind == "login") {
				t.Errorf("the end of a login is recorded %d times", n)
			}
		})
	}
}

func TestWhatIsOpenEndsWithADisplacedLoginAtTheDomain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 80, http.HandlerFunc(endless))
	ann := s.client()
	s.loginAtRoot(ann)
	s.enter(ann, "blog")
	stream, socket := s.openStream(ann, s.url("blog")), s.openSocket("blog.lodge.localhost", s.cookieOf(ann, s.url("blog")))
	for range gateway.MaxWebSessions - 1 {
		s.loginAtRoot(s.client())
	}
	if err := stream(); err != nil {
		t.Fatalf("below the limit: %v", err)
	}
	s.loginAtRoot(s.client())
	if stream() == nil || socket() == nil {
		t.Error("something is still open")
	}
	if status := s.status(ann, s.url("blog")); status != 401 {
		t.Errorf("afterwards: %d", status)
	}
}
