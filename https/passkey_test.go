package https_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"lodge/gateway/gatewaytest"
	"lodge/gateway/store"
	"lodge/https"
	"lodge/https/access"
	"lodge/https/login/passkey"
	"lodge/https/names"
)

// passkeySite is a site whose domain itself has passkeys of two persons. Who is logged in is in a plain
// cookie here.
type passkeySite struct {
	*site
	keys   *store.Passkeys
	ahead  atomic.Int64  // of the clock; time.Duration
	barred atomic.Uint64 // the ID of a person who may no longer log in
}

func newPasskeySite(t *testing.T) *passkeySite {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "people.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { db.Close() })
	p := &passkeySite{keys: db.Passkeys()}
	p.site = newSiteWith(t, func(_ *site, c *https.Config) {
		h, err := passkey.New(passkey.Config{
			Domain: c.Domain, Origin: names.Origin(c.Domain, c.Port), Store: p.keys, Logger: slog.New(slog.DiscardHandler),
			Visitor: func(r *http.Request) (access.Person, bool) {
				var person access.Person
				cookie, err := r.Cookie("person")
				if err == nil {
					_, err = fmt.Sscanf(cookie.Value, "%d|%s", &person.ID, &person.Address)
				}
				return person, err == nil
			},
			Fresh: func(*http.Request) bool { return true },
			Current: func(_ context.Context, person access.Person) (access.Person, bool) {
				return person, uint64(person.ID) != p.barred.Load()
			},
			Login: func(w http.ResponseWriter, _ *http.Request, person access.Person) error {
				http.SetCookie(w, &http.Cookie{Name: "person", Value: fmt.Sprintf("%d|%s", person.ID, person.Address), Path: "/"})
				return nil
			},
			Now: func() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) },
		})
		gatewaytest.Must(t, err)
		c.Root = h.Handlers()
		c.Root["/test"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { servePasskeyScript(w, "/") })
	})
	return p
}

// servePasskeyScript serves a page with the script, which takes the host's challenges from another
// place. A VM's page would relay them.
func servePasskeyScript(w http.ResponseWriter, from string) {
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprintf(w, "<title>test</title><h1>test</h1><script>%s</script>", strings.ReplaceAll(passkey.Script, `"/.lodge/`, `"`+from+`.lodge/`))
}

// device gives the browser a virtual authenticator.
func device(ctx context.Context, t *testing.T) webauthn.AuthenticatorID {
	t.Helper()
	_, err := chromedp.Call(ctx, webauthn.Enable, webauthn.EnableParams{})
	gatewaytest.Must(t, err)
	added, err := chromedp.Call(ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Ctap2version: webauthn.Ctap2versionCtap21, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		HasCmtgKey: true, // for AddCredential, which always has a field of that extension
	}})
	gatewaytest.Must(t, err)
	return added.AuthenticatorID
}

// credential returns the only credential of the authenticator.
func credential(ctx context.Context, t *testing.T, id webauthn.AuthenticatorID) *webauthn.Credential {
	t.Helper()
	got, err := chromedp.Call(ctx, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: id})
	if err != nil || len(got.Credentials) != 1 {
		t.Fatalf("%d credentials, %v", len(got.Credentials), err)
	}
	return got.Credentials[0]
}

// replace puts c in place of the authenticator's credentials.
func replace(ctx context.Context, t *testing.T, id webauthn.AuthenticatorID, c *webauthn.Credential) {
	t.Helper()
	_, err := chromedp.Call(ctx, webauthn.ClearCredentials, webauthn.ClearCredentialsParams{AuthenticatorID: id})
	gatewaytest.Must(t, err)
	c.CmtgKeys, c.ActiveCmtgKeyIndex = nil, nil // none was made
	_, err = chromedp.Call(ctx, webauthn.AddCredential, webauthn.AddCredentialParams{AuthenticatorID: id, Credential: c})
	gatewaytest.Must(t, err)
}

// as opens the test's page as a person who is logged in, or as nobody.
func (p *passkeySite) as(ctx context.Context, t *testing.T, person string) {
	t.Helper()
	_, err := chromedp.Call(ctx, network.ClearBrowserCookies, cdp.Empty{})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, chromedp.Do(ctx, chromedp.Navigate(p.root()+"/test")))
	if person != "" {
		evaluate(ctx, t, fmt.Sprintf("document.cookie = 'person=%s; path=/'", person))
	}
}

// evaluate returns what a promise of the page becomes, as text: an error's is its name and message.
func evaluate(ctx context.Context, t *testing.T, expression string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		`(async () => { try { return JSON.stringify(await (`+expression+`)) ?? "" } catch (e) { return e.name + ": " + e.message } })()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return got
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestPasskey(t *testing.T) {
	t.Parallel()
	p := newPasskeySite(t)
	ctx := chromium(t, p.site)
	phone := device(ctx, t)

	p.as(ctx, t, "")
	wantText(t, "registration of nobody", evaluate(ctx, t, `passkey.register("x")`), "you are not logged in")
	wantText(t, "login without a passkey", evaluate(ctx, t, `passkey.login()`), "NotAllowedError")
	p.as(ctx, t, "7|ann@example.org")
	wantText(t, "registration", evaluate(ctx, t, `passkey.register(" phone ")`), `"name":"phone"`)
	wantText(t, "a second one on the same device", evaluate(ctx, t, `passkey.register("again")`), "InvalidStateError")
	if c := credential(ctx, t, phone); !c.IsResidentCredential || c.RpID != "lodge.localhost" || c.UserName != "ann@example.org" {
		t.Errorf("on the device: %+v", c)
	}

	p.as(ctx, t, "")
	wantText(t, "login", evaluate(ctx, t, `passkey.login()`), `{"person":"ann@example.org"}`)
	wantText(t, "the session", evaluate(ctx, t, `document.cookie`), "person=7|ann@example.org")
	used, err := p.keys.Passkeys(t.Context(), 7)
	if err != nil || len(used) != 1 || used[0].Used.IsZero() {
		t.Errorf("stored: %+v, %v", used, err)
	}
	wantText(t, "the list", evaluate(ctx, t, `fetch("/.lodge/passkeys/list").then(r => r.json())`), `"name":"phone"`)

	t.Run("a copy", func(t *testing.T) { p.copied(ctx, t, phone) })
	t.Run("no user verified", func(t *testing.T) {
		_, err := chromedp.Call(ctx, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: phone})
		gatewaytest.Must(t, err)
		p.as(ctx, t, "")
		wantText(t, "login", evaluate(ctx, t, `passkey.login()`), "NotAllowedError")
		_, err = chromedp.Call(ctx, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: phone, IsUserVerified: true})
		gatewaytest.Must(t, err)
	})
	t.Run("another person", func(t *testing.T) { p.another(ctx, t, phone) })
	t.Run("expired", func(t *testing.T) {
		p.as(ctx, t, "")
		evaluate(ctx, t, `passkey.post("challenge", {}).then(o => { self.late = o })`)
		p.ahead.Store(int64(5 * time.Minute))
		got := evaluate(ctx, t, `navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(late)}).then(c => passkey.post("login", c))`)
		wantText(t, "login", got, "took more than five minutes")
		p.ahead.Store(0)
	})
	t.Run("a page of a VM", func(t *testing.T) { p.elsewhere(ctx, t) })
	t.Run("replayed", func(t *testing.T) { p.replayed(ctx, t) })
	t.Run("removed", func(t *testing.T) {
		gatewaytest.Must(t, p.keys.RemovePasskeys(t.Context(), 7))
		p.as(ctx, t, "")
		wantText(t, "login", evaluate(ctx, t, `passkey.login()`), "this passkey is not known here")
	})
}

// copied: a copy of a passkey has an older counter, or leaves the original with one.
func (p *passkeySite) copied(ctx context.Context, t *testing.T, phone webauthn.AuthenticatorID) {
	t.Helper()
	p.as(ctx, t, "")
	original := credential(ctx, t, phone)
	clone := *original
	wantText(t, "the original", evaluate(ctx, t, `passkey.login()`), "ann@example.org")
	replace(ctx, t, phone, &clone)
	p.as(ctx, t, "")
	wantText(t, "the copy", evaluate(ctx, t, `passkey.login()`), "another copy of it seems to be in use. Log in another way, remove the passkey")
	wantText(t, "the session", evaluate(ctx, t, `document.cookie || "none"`), "none")
	clone.SignCount = original.SignCount + 10
	replace(ctx, t, phone, &clone)
	wantText(t, "a copy that is ahead", evaluate(ctx, t, `passkey.login()`), "ann@example.org")
	original.SignCount += 2
	replace(ctx, t, phone, original)
	wantText(t, "the original behind it", evaluate(ctx, t, `passkey.login()`), "another copy of it seems to be in use")
	original.SignCount += 100
	replace(ctx, t, phone, original)
}

// another: the device names whose passkey it is, which the host does not believe.
func (p *passkeySite) another(ctx context.Context, t *testing.T, phone webauthn.AuthenticatorID) {
	t.Helper()
	anns := credential(ctx, t, phone)
	stolen := *anns
	stolen.UserHandle = []byte{0, 0, 0, 0, 0, 0, 0, 8}
	replace(ctx, t, phone, &stolen)
	p.as(ctx, t, "")
	wantText(t, "ann's with bob's handle", evaluate(ctx, t, `passkey.login()`), "this passkey is not known here")
	// bob registers while ann is logged in by then
	_, err := chromedp.Call(ctx, webauthn.ClearCredentials, webauthn.ClearCredentialsParams{AuthenticatorID: phone})
	gatewaytest.Must(t, err)
	p.as(ctx, t, "8|bob@example.org")
	got := evaluate(ctx, t, `passkey.post("new", {}).then(async o => {
		const credential = await navigator.credentials.create({publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(o)})
		document.cookie = "person=7|ann@example.org; path=/"
		return passkey.post("add", {name: "x", credential})
	})`)
	wantText(t, "a registration that another person ends", got, "another person is logged in")
	replace(ctx, t, phone, anns)
	p.barred.Store(7)
	p.as(ctx, t, "")
	wantText(t, "a person who is barred", evaluate(ctx, t, `passkey.login()`), "may no longer log in")
	p.barred.Store(0)
}

// elsewhere: a VM's page may have the browser sign for the domain above it, with a challenge that its
// app has fetched. The origin shows it.
func (p *passkeySite) elsewhere(ctx context.Context, t *testing.T) {
	t.Helper()
	blog := p.vm("blog", public(0)...)
	visitor := p.client() // the app, which is a browser to the host
	p.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/relay/") {
			servePasskeyScript(w, "/relay/")
			return
		}
		a := p.do(visitor, http.MethodPost, p.root()+strings.TrimPrefix(r.URL.Path, "/relay"), r.Body, "Content-Type", "application/json")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.StatusCode)
		fmt.Fprint(w, a.body)
	}))
	gatewaytest.Must(t, chromedp.Do(ctx, chromedp.Navigate(p.url("blog")+"/")))
	wantText(t, "login", evaluate(ctx, t, `passkey.login()`), "the passkey was used for another page")
}

// replayed: what was sent once works in no browser again, nor with another cookie.
func (p *passkeySite) replayed(ctx context.Context, t *testing.T) {
	t.Helper()
	p.as(ctx, t, "")
	var sent string
	answer := evaluate(ctx, t, `passkey.post("challenge", {}).then(async o => {
		const c = await navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(o)})
		return JSON.stringify(c)
	})`)
	gatewaytest.Must(t, json.Unmarshal([]byte(answer), &sent))
	post := func(c *http.Client, header ...string) answerText {
		a := p.do(c, http.MethodPost, p.root()+"/.lodge/passkeys/login", strings.NewReader(sent), append(header, "Content-Type", "application/json")...)
		return answerText{a.StatusCode, a.body}
	}
	if a := post(p.client(), "Origin", p.url("blog")); a.status != http.StatusForbidden || !strings.Contains(a.body, "cross-site") {
		t.Errorf("from a page elsewhere: %+v", a)
	}
	if a := post(p.client()); a.status != http.StatusForbidden || !strings.Contains(a.body, "did not begin this") {
		t.Errorf("by another browser: %+v", a)
	}
	wantText(t, "by the right one, after that", evaluate(ctx, t, `passkey.post("login", `+sent+`)`), "did not begin this")
	wantText(t, "a new one", evaluate(ctx, t, `passkey.login()`), "ann@example.org")
	for name, body := range map[string]string{"nothing": "", "a list": "[]", "no credential": "{}", "much": strings.Repeat(" ", 70<<10)} {
		a := p.do(p.client(), http.MethodPost, p.root()+"/.lodge/passkeys/login", bytes.NewReader([]byte(body)), "Content-Type", "application/json")
		if a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s: %s", name, a.Status, a.body)
		}
	}
	if a := p.do(p.client(), http.MethodPost, p.root()+"/.lodge/passkeys/login", strings.NewReader(sent)); a.StatusCode != http.StatusBadRequest {
		t.Errorf("without its type, as a form could: %s", a.Status)
	}
	if a := p.get(p.client(), p.root()+"/.lodge/passkeys/login"); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a GET: %s", a.Status)
	}
}

type answerText struct {
	status int
	body   string
}
