package apex

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// fullDisk has sessions whose use cannot be noted.
type fullDisk struct{ *sessions }

type sessions = store.WebSessions

func (fullDisk) SeeWebSession(context.Context, gateway.Principal, [32]byte, time.Time, string) error {
	return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full")
}

// A login lasts on a full disk, and no longer than it and its person are there.
func TestLasts(t *testing.T) {
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = db.Close() }) // the test is over
	book, err := people.Open(t.Context(), db.Shared(), "ann@example.org")
	gatewaytest.Must(t, err)
	bob, _, err := book.Add(t.Context(), "bob@example.org", "")
	gatewaytest.Must(t, err)
	now := time.Now().UTC()
	h := &Handler{Config: Config{
		Policy: access.Policy{People: book}, Sessions: fullDisk{db.WebSessions()},
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
	}}
	s := gateway.WebSession{ID: [32]byte{1}, Person: bob.ID, Address: bob.Mail, Created: now, Seen: now.Add(-time.Hour), Until: now.Add(time.Hour)}
	_, err = db.WebSessions().AddWebSession(t.Context(), s)
	gatewaytest.Must(t, err)
	if err := h.Lasts(t.Context(), bob.ID, s.ID); err != nil {
		t.Errorf("on a full disk: %v", err)
	}
	if err := h.Lasts(t.Context(), book.Owner().ID, s.ID); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("of another person: %v", err)
	}
	if err := h.Lasts(t.Context(), bob.ID, [32]byte{2}); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("ended: %v", err)
	}
	_, err = book.Remove(t.Context(), bob.Mail)
	gatewaytest.Must(t, err)
	if err := h.Lasts(t.Context(), bob.ID, s.ID); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("of a person who is removed: %v", err)
	}
}

// none has no VMs: names of VMs are read the same.
type none struct{}

func (none) ByName(string) (gateway.VM, bool) { return gateway.VM{}, false }
func (none) ByDomain(string) (gateway.VM, gateway.Domain, bool) {
	return gateway.VM{}, gateway.Domain{}, false
}

// FuzzWanted: whatever a link to the login wants to open, the browser goes to a name of a VM, or to one of
// three pages of the domain itself.
func FuzzWanted(f *testing.F) {
	root := "https://lodge.localhost"
	for _, to := range []string{
		"https://blog.lodge.localhost/a?b=c", root + "/.lodge/ask?to=https%3A%2F%2Fblog.lodge.localhost%2F", root + "/.lodge/requests?id=00", root + "@evil.example/.lodge/ask",
		root + ".evil.example/.lodge/ask", root + "//evil.example/.lodge/ask", root + "/.lodge/ask#//evil", root + "/.lodge/askew", "/.lodge/ask", root,
	} {
		f.Add(to)
	}
	policy := access.Policy{Zone: names.Zone{Domain: "lodge.localhost", Guests: gateway.InternalDomain, Port: 443}, VMs: none{}}
	h := &Handler{Config: Config{Policy: policy, Login: login.New(login.Config{Policy: policy})}}
	r := httptest.NewRequestWithContext(f.Context(), http.MethodGet, root+"/.lodge/login", nil)
	f.Fuzz(func(t *testing.T, to string) {
		got := h.wanted(r, to)
		u, err := url.Parse(got)
		if err != nil {
			t.Fatalf("%q leads to %q: %v", to, got, err)
		}
		own := got == browser.LocalPath(got) && (u.Path == AccountPath || u.Path == pages.AskPath || u.Path == pages.AnswerPath)
		vm := u.Scheme == "https" && u.User == nil && strings.HasSuffix(u.Hostname(), ".lodge.localhost")
		if !own && !vm {
			t.Errorf("%q leads to %q", to, got)
		}
	})
}

// FuzzCookie: what a browser sends is a session's cookie in one spelling, or none.
func FuzzCookie(f *testing.F) {
	secret := browser.NewSecret()
	for _, value := range []string{"", ".", "1." + secret, "01." + secret, "+1." + secret, "-1." + secret, "1.." + secret, "9223372036854775808." + secret} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		person, id, ok := readCookie(value)
		if ok && (person <= 0 || id == [32]byte{} || len(value) > 64) {
			t.Errorf("%q is of person %d", value, person)
		}
	})
	if person, _, ok := readCookie(cookieValue(7, secret)); !ok || person != 7 {
		f.Errorf("of person %d, %t", person, ok)
	}
}
