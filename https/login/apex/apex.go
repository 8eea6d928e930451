// Package apex logs people in at the domain itself: by a passkey, through a provider of OpenID Connect,
// or by a one-time link.
//
// A login is a session of one browser, whose cookie stays with the domain. It is handed over to each VM
// that the person may open by a code that works once (package login); the sessions at VMs' names belong
// to it and end with it, with what is open. A person sees the sessions and the passkeys of the account,
// and ends one or all.
//
// Nothing changes by a GET, nor by a request that a page elsewhere sends, a VM's included. After a login
// a browser is led to names of the host alone.
package apex

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/login/browser"
	"lodge/https/login/oidc"
	"lodge/https/login/passkey"
	"lodge/https/names"
	"lodge/https/pages"
)

// Sessions keeps sessions by person. What it has changed is synced to disk. A session that is missing
// or has ended is KindNotFound.
type Sessions interface {
	// AddWebSession returns the sessions that made room, with an error too.
	AddWebSession(ctx context.Context, s gateway.WebSession) ([]gateway.WebSession, error)
	WebSession(ctx context.Context, person gateway.Principal, id [32]byte) (gateway.WebSession, error)
	WebSessions(ctx context.Context, person gateway.Principal) ([]gateway.WebSession, error)
	SeeWebSession(ctx context.Context, person gateway.Principal, id [32]byte, seen time.Time, from string) error
	RemoveWebSessions(ctx context.Context, person gateway.Principal, which func(gateway.WebSession) bool) ([]gateway.WebSession, error)
}

// Answers are those to requests for access. They decide who may answer: KindDenied.
type Answers interface {
	// Requests are those that somebody may answer, the oldest first.
	Requests(ctx context.Context, by gateway.Principal) ([]gateway.AccessRequest, error)
	// Approve and Deny answer a request, once.
	Approve(ctx context.Context, by gateway.Principal, id string) error
	Deny(ctx context.Context, by gateway.Principal, id string) error
}

// Config is what a Handler needs. All fields but Providers, Answers, Asked and Now are required.
type Config struct {
	Policy   access.Policy
	Login    *login.Handler
	Sessions Sessions
	Passkeys passkey.Store
	// Admits reports whether a VM is shared with all who have a mail address of a domain.
	Admits    func(domain string) bool
	Providers []oidc.Provider
	Requests  *people.Requests
	Answers   Answers // to requests; nil: nobody answers here
	// Asked is called for each new request for a page of a VM, once it is on disk. It must return at once, whatever it
	// does: its time must not show that the VM exists. nil: nothing is done.
	Asked func(gateway.AccessRequest)
	VMs   func() []gateway.VM // ordered by name
	Pages *pages.Renderer
	// Ended is called when a login has ended, with all that was opened by it.
	Ended func(login.ID)
	// EndedAll is called when all logins of a person have ended, those at VMs too.
	EndedAll func(person gateway.Principal)
	Logger   *slog.Logger
	Now      func() time.Time // nil means time.Now
}

// The paths of the domain itself, below login.Prefix, with package passkey's and package oidc's.
const (
	AccountPath  = login.Prefix + "account"
	sessionsPath = login.Prefix + "sessions" // the list, for programs
)

// sessionCookie holds "<person>.<secret>". Names of VMs never get it: it stays with the domain.
const sessionCookie = "__Host-lodge"

// freshLife is how long after its login a session may add a passkey.
const freshLife = 15 * time.Minute

// seenEvery is how coarse the time of the last use is.
const seenEvery = 10 * time.Minute

// maxFormBytes limits the forms.
const maxFormBytes = 8 << 10

// Handler serves the domain's own login and account. It is safe for concurrent use; make one with New.
type Handler struct {
	Config
	passkeys  *passkey.Handler
	providers *oidc.Handler
	scripts   map[string]http.Handler // by path
}

// New returns a Handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &Handler{Config: cfg}
	origin := names.Origin(cfg.Policy.Zone.Domain, cfg.Policy.Zone.Port)
	var err error
	h.passkeys, err = passkey.New(passkey.Config{
		Domain: cfg.Policy.Zone.Domain, Origin: origin, Store: cfg.Passkeys, Visitor: h.Visitor, Current: h.current,
		Fresh: func(r *http.Request) bool {
			s, ok := h.session(r)
			return ok && h.fresh(s)
		},
		Login: func(w http.ResponseWriter, r *http.Request, p access.Person) error {
			return h.start(w, r, p, "passkey")
		},
		Logger: cfg.Logger, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	if h.providers, err = oidc.New(oidc.Config{Origin: origin, Providers: cfg.Providers, Logger: cfg.Logger, Now: cfg.Now}); err != nil {
		return nil, fmt.Errorf("login providers: %w", err)
	}
	h.scripts = h.passkeys.Handlers()
	return h, nil
}

// Serve answers the paths below login.Prefix at the domain itself. People log in there; VMs cannot.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) {
	if gateway.VMFrom(r.Context()).Known() {
		h.Pages.Render(w, r, pages.NotFound())
		return
	}
	if script, ok := h.scripts[r.URL.Path]; ok {
		script.ServeHTTP(w, r)
		return
	}
	provider, ofProvider := strings.CutPrefix(r.URL.Path, oidc.Prefix)
	switch isGet := r.Method == http.MethodGet || r.Method == http.MethodHead; {
	case ofProvider && r.Method == http.MethodPost:
		h.post(w, r, func() { h.beginProvider(w, r, provider) })
	case ofProvider && isGet:
		h.finishProvider(w, r, provider)
	case r.URL.Path == login.ApexLoginPath && r.Method == http.MethodPost:
		h.post(w, r, func() { h.useLink(w, r) })
	case r.URL.Path == login.ApexLoginPath && isGet:
		h.loginPage(w, r)
	case r.URL.Path == login.ApexHandoffPath && isGet:
		h.handOver(w, r)
	case r.URL.Path == AccountPath && r.Method == http.MethodPost:
		h.post(w, r, func() { h.change(w, r) })
	case r.URL.Path == AccountPath && isGet:
		h.accountPage(w, r)
	case r.URL.Path == pages.AskPath && r.Method == http.MethodPost:
		h.post(w, r, func() { h.ask(w, r) })
	case r.URL.Path == pages.AskPath && isGet:
		h.askPage(w, r)
	case r.URL.Path == pages.AnswerPath && r.Method == http.MethodPost:
		h.post(w, r, func() { h.answer(w, r) })
	case r.URL.Path == pages.AnswerPath && isGet:
		h.requestsPage(w, r)
	case r.URL.Path == sessionsPath && isGet:
		h.listSessions(w, r)
	default:
		h.Pages.Render(w, r, pages.NotFound())
	}
}

// post runs what a form of the domain's own pages does.
func (h *Handler) post(w http.ResponseWriter, r *http.Request, do func()) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if !browser.SameOrigin(r) {
		h.fail(w, r, browser.ErrElsewhere())
		return
	}
	if err := r.ParseForm(); err != nil {
		h.fail(w, r, gateway.Invalid("the form could not be read").Because(err))
		return
	}
	do()
}

// fail renders the page for an error.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	h.Pages.Render(w, r, h.failed(err))
}

func (h *Handler) failed(err error) pages.Page {
	kind := gateway.KindOf(err)
	if kind == gateway.KindInternal {
		h.Logger.Error("login failed", "err", err)
		return pages.InternalError()
	}
	return pages.Failed(browser.Status(kind), err, login.ApexLoginPath)
}

// cookieValue is what a browser holds of a session.
func cookieValue(person gateway.Principal, secret string) string {
	return strconv.FormatUint(uint64(person), 10) + "." + secret
}

// readCookie reads what cookieValue has written.
func readCookie(value string) (person gateway.Principal, id login.ID, ok bool) {
	number, secret, _ := strings.Cut(value, ".")
	n, err := strconv.ParseUint(number, 10, 64)
	id, ok = browser.Hash(secret)
	return gateway.Principal(n), id, ok && err == nil && n > 0
}
