package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// A login at the domain itself leads to the names of all VMs. A browser that has none at a name fetches
// it there: enterPath, and any page load that would be turned away (StartEnter), binds the browser and sends
// it to the domain, which sends it back with a code, as a handoff within a VM does (HandOver). Package apex
// is the other end. A browser without a login there comes back without a code, which is not tried again for
// a moment, and gets the page that asks for a login.

// Paths of the domain itself, and where it sends browsers to at a VM's name.
const (
	ApexLoginPath   = Prefix + "login"   // ?to=: logs in, then opens a URL of a VM
	ApexHandoffPath = Prefix + "handoff" // ?to=&for=&path=: sends a browser back with a code
)

// maxWantedBytes limits the URL that is opened after a login.
const maxWantedBytes = 2 << 10

// enter redirects a browser to the domain, to fetch a login for this name.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request, rt names.Route) {
	if rt.Guests { // names of the guests' domain are elsewhere
		h.Pages.Render(w, r, pages.NotFound())
		return
	}
	h.askDomain(w, r, rt, browser.LocalPath(r.URL.Query().Get("path")))
}

// askDomain redirects a browser to the domain, which sends it back to open path.
func (h *Handler) askDomain(w http.ResponseWriter, r *http.Request, rt names.Route, path string) {
	query := url.Values{"to": {rt.Host}, "for": {browser.Bind(w, r, handoffLife)}, "path": {path}}
	browser.Redirect(w, http.StatusFound, h.apexOrigin(r)+ApexHandoffPath+"?"+query.Encode())
}

// StartEnter redirects a page load without a session to the domain, to fetch a login for this name. It is
// false for what is no page load of a tab, and for a browser that has just come from there without one. It
// depends on nothing that exists.
func (h *Handler) StartEnter(w http.ResponseWriter, r *http.Request, rt names.Route) bool {
	return h.startEnter(w, r, rt, browser.LocalPath(r.URL.RequestURI()))
}

func (h *Handler) startEnter(w http.ResponseWriter, r *http.Request, rt names.Route, path string) bool {
	if _, err := r.Cookie(triedCookie); err == nil || rt.Guests || !access.OpensTab(r) || len(path) > maxWantedBytes {
		return false
	}
	h.askDomain(w, r, rt, path)
	return true
}

// BackURL is where the domain sends a browser that has no login there. Such a name need not exist.
func BackURL(rt names.Route, path string, port int) string {
	return names.Origin(rt.Host, port) + callbackPath + "?" + url.Values{"path": {path}}.Encode()
}

// backWithoutLogin takes a browser that BackURL has sent back. One that keeps no cookies would be sent to the
// domain again.
func (h *Handler) backWithoutLogin(w http.ResponseWriter, r *http.Request, rt names.Route) {
	path := browser.LocalPath(r.URL.Query().Get("path"))
	if _, ok := browser.Bound(r); !ok {
		h.Pages.Render(w, r, h.PrivateAt(r, rt, rt.Host, path))
		return
	}
	browser.SetCookie(w, triedCookie, "1", triedLife)
	browser.Redirect(w, http.StatusFound, path)
}

// EnterURL returns the URL at which a browser fetches a login from the domain for a URL of a VM. It is
// false for any URL that is not below the domain or at a custom domain of a VM: who makes a link to a
// login leads nobody elsewhere.
func (h *Handler) EnterURL(wanted string, port int) (string, bool) {
	rt, path, ok := h.Wanted(wanted)
	if !ok {
		return "", false
	}
	host := rt.Host
	if !rt.Custom && host != rt.Plain { // whose login the VM's other names fetch
		host, path = rt.Plain, onURL(rt.Host, path)
	}
	return names.Origin(host, port) + enterPath + "?" + url.Values{"path": {path}}.Encode(), true
}

// onURL is the path at the plain name that opens a path at another name of the VM.
func onURL(host, path string) string {
	return onPath + "?" + url.Values{"at": {host}, "path": {path}}.Encode()
}

// WantedAt is the URL that somebody wants to open who was sent to the domain from a path at a host name: that
// leads to another name of the VM where EnterURL has made it so.
func WantedAt(host, path string, port int) string {
	if query, ok := strings.CutPrefix(path, onPath+"?"); ok {
		if on, err := url.ParseQuery(query); err == nil {
			host, path = on.Get("at"), browser.LocalPath(on.Get("path"))
		}
	}
	return names.Origin(host, port) + path
}

// Wanted reads a URL of a VM that somebody wants to open: the route, whether a VM has its name or not, and
// the path, which is "/" for those of the gateway. It is false for any other URL.
func (h *Handler) Wanted(wanted string) (rt names.Route, path string, ok bool) {
	u, err := url.Parse(wanted)
	if err != nil || len(wanted) > maxWantedBytes || u.Scheme != "https" || u.User != nil || u.Opaque != "" {
		return names.Route{}, "", false
	}
	rt, ok = h.Policy.Zone.Route(u.Host, gateway.Identity{}, h.Policy.VMs)
	if !ok || rt.VMName == "" || rt.Guests {
		return names.Route{}, "", false
	}
	if path = browser.LocalPath(u.RequestURI()); strings.HasPrefix(path, Prefix) {
		path = "/"
	}
	return rt, path, true
}

// goOn redirects a browser with a session to another name of the VM.
func (h *Handler) goOn(w http.ResponseWriter, r *http.Request, rt names.Route) {
	query := r.URL.Query()
	to, ok := h.Policy.Zone.Route(query.Get("at"), gateway.Identity{}, h.Policy.VMs)
	if _, loggedIn := h.Session(r, rt); !loggedIn { // before anything that depends on what exists
		h.Pages.Render(w, r, h.PrivateAt(r, rt, query.Get("at"), query.Get("path")))
		return
	}
	if !ok || to.VM.ID != rt.VM.ID || to.Service != "" {
		h.Pages.Render(w, r, pages.NotFound())
		return
	}
	browser.Redirect(w, http.StatusFound, names.Origin(to.Host, names.PortSeen(r))+browser.LocalPath(query.Get("path")))
}

// HandOver returns the URL that starts a session of a login at the domain at a VM's name, in the browser
// that is bound to bound alone, and opens path. The caller has checked that the person may open it.
func (h *Handler) HandOver(ctx context.Context, s Session, rt names.Route, bound, path string, port int) (string, error) {
	g := s.grant(rt.Host)
	g.Bound = bound
	code, err := h.issue(ctx, kindHandoff, rt.VM.ID, s.Person, g, handoffLife)
	if err != nil {
		return "", err
	}
	back := url.Values{"code": {code}, "path": {path}}
	return names.Origin(rt.Host, port) + callbackPath + "?" + back.Encode(), nil
}

// ApexLink makes a link that logs a person in at the domain itself, once, within 15 minutes. KindDenied:
// the person is removed.
func (h *Handler) ApexLink(ctx context.Context, person gateway.Principal) (string, error) {
	if _, ok := h.Policy.People.Person(person); !ok {
		return "", gateway.Errorf(gateway.KindDenied, "nobody here is the person that is to log in").WithHint("Add them: lodge person add ADDRESS")
	}
	token, err := h.issue(ctx, kindApex, gateway.ID{}, person, grant{}, linkLife)
	if err != nil {
		return "", err
	}
	return names.Origin(h.Policy.Zone.Domain, h.Policy.Zone.Port) + ApexLoginPath + "?token=" + token, nil
}

// UseApexLink returns the person of a link's token, once. The error is KindNotFound for a token that is
// used, expired or for a VM.
func (h *Handler) UseApexLink(ctx context.Context, token string) (gateway.Principal, error) {
	link, _, err := h.sessions.take(ctx, kindApex, token)
	return link.Person, err
}

// ApexLinkWorks reports whether UseApexLink would return a person. It changes nothing.
func (h *Handler) ApexLinkWorks(ctx context.Context, token string) error {
	_, err := h.sessions.peek(ctx, kindApex, token)
	return err
}

// RemoveLogin removes what is cached of a login, or of another secret, with what belongs to it. Call it
// once that has ended.
func (h *Handler) RemoveLogin(id ID) {
	h.sessions.remove(func(k known) bool { return k.Login == id || k.key.Hash == id })
	h.joins.removeLogin(id)
}

// EndPerson ends all logins of a person at VMs, by links, and makes the links and codes that were not
// used yet worthless. Tokens and links to ports stay. The caller ends what is open.
func (h *Handler) EndPerson(ctx context.Context, person gateway.Principal) error {
	var err error
	for _, kind := range []string{kindLink, kindApex, kindHandoff, kindLogin, kindSession} {
		err = errors.Join(err, h.Store.RemoveSecrets(ctx, gateway.SecretsOf{Kind: kind, Person: person}))
	}
	h.sessions.remove(func(k known) bool { return k.Person == person && k.key.Kind == kindSession })
	return err
}

// RemoveOthers removes what is cached of persons for whom there returns false.
func (h *Handler) RemoveOthers(there func(gateway.Principal) bool) {
	h.sessions.remove(func(k known) bool { return k.Person != 0 && !there(k.Person) || k.By != 0 && !there(k.By) })
	h.seen.clear()
}

// Private is the page for a visitor without a session at the route's name, with a link to the login.
func (h *Handler) Private(r *http.Request, rt names.Route) pages.Page {
	return h.PrivateAt(r, rt, rt.Host, r.URL.RequestURI())
}

// PrivateAt is Private for a path at another name of the VM.
func (h *Handler) PrivateAt(r *http.Request, rt names.Route, host, path string) pages.Page {
	if rt.Guests {
		return pages.Private(rt, "", "")
	}
	to := h.queryFor(r, rt, host, path)
	return pages.Private(rt, h.apexOrigin(r)+ApexLoginPath+to, h.askURL(r, rt, to))
}

// Refused is the page for a visitor with a session at the route's name, who may not open a path at host.
func (h *Handler) Refused(r *http.Request, rt names.Route, address, host, path string) pages.Page {
	if rt.Guests {
		return pages.Refused(address, "")
	}
	return pages.Refused(address, h.askURL(r, rt, h.queryFor(r, rt, host, path)))
}

// askURL is the page that asks for access; "" for a bucket, since requests are for ports.
func (h *Handler) askURL(r *http.Request, rt names.Route, query string) string {
	if rt.Service != "" {
		return ""
	}
	return h.apexOrigin(r) + pages.AskPath + query
}

// queryFor is the query with which the domain's own pages know what a visitor wants to open.
func (h *Handler) queryFor(r *http.Request, rt names.Route, host, path string) string {
	wanted := names.Origin(host, names.PortSeen(r)) + browser.LocalPath(path)
	to, ok := h.Policy.Zone.Route(host, gateway.Identity{}, h.Policy.VMs)
	if !ok || to.Plain != rt.Plain || len(wanted) > maxWantedBytes {
		return ""
	}
	if r.Method != http.MethodGet {
		wanted = names.Origin(host, names.PortSeen(r)) + "/"
	}
	return "?" + url.Values{"to": {wanted}}.Encode()
}

// apexOrigin is the domain, at the port that the browser uses.
func (h *Handler) apexOrigin(r *http.Request) string {
	return names.Origin(h.Policy.Zone.Domain, names.PortSeen(r))
}

// NewApexSession returns a session of a new login at the domain, with the secret of the browser.
func NewApexSession(person access.Person, now time.Time) (s Session, secret string) {
	secret = browser.NewSecret()
	id, _ := browser.Hash(secret) // NewSecret made it
	return Session{Person: person.ID, Mail: person.Address, Login: id, Apex: true, Until: now.Add(loginLife)}, secret
}
