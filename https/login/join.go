package login

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// One login covers all names of its VM, though each name has a session of its own.
//
// A tab that opens another name is redirected (StartHandoff), but requests of a page's scripts cannot
// be: browsers send no preflight and no WebSocket on after a redirect, and others with the origin
// "null". So the sessions have to be there before the page is. A cookie of the whole domain would need
// none of this. It would reach every VM of the host though, each of which could replace it, and browsers
// refuse it where the domain is on the Public Suffix List.
//
// So a page load first leads to a page of the gateway (namesPath), which loads an image from each name
// of the VM that listens and that this login has not joined yet; each image is a handoff. A name on
// which a page of the VM was turned away is joined at the next page load, whatever its port. Session
// cookies stay with one name each, and who may use them is decided as ever: a page of another VM gains
// nothing from a join, which it cannot start either (Policy.CrossSite).
//
// A custom domain is another site to browsers, which keep the cookies of the VM's other names from its
// pages: it has no part in this.

const (
	probeLife  = 2 * time.Second        // how long the names of a login are not looked for again
	probeLimit = 300 * time.Millisecond // on the search, which delays a page
	maxJoins   = 32                     // names joined by one page
	maxWanted  = 16                     // names of a VM on which its pages were turned away
)

// joins has what the logins have joined. It is not stored: after a restart the names are joined once more.
type joins struct {
	mu     sync.Mutex
	logins map[loginAt]*joined
	wanted map[gateway.ID][]names.Name
}

// loginAt is a login at one VM.
type loginAt struct {
	login ID
	vm    gateway.ID
}

type joined struct {
	hosts   map[string]bool
	pending []string // hosts that the next page of namesPath joins
	probed  time.Time
}

func newJoins() *joins {
	return &joins{logins: map[loginAt]*joined{}, wanted: map[gateway.ID][]names.Name{}}
}

// Want notes that a page of the route's VM was turned away at rt's name, if a login of the VM was used
// where the request comes from.
func (h *Handler) Want(r *http.Request, rt names.Route) {
	from := r.Header.Get("Origin")
	if from == "" {
		from = r.Header.Get("Referer")
	}
	if rt.Custom || !h.Policy.Zone.SameVM(from, rt, h.Policy.VMs) || !h.SeenFrom(r, rt) {
		return
	}
	h.joins.mu.Lock()
	defer h.joins.mu.Unlock()
	wanted := h.joins.wanted[rt.VM.ID]
	if slices.Contains(wanted, rt.Name) {
		return
	}
	if len(wanted) == maxWanted {
		wanted = wanted[1:]
	}
	h.joins.wanted[rt.VM.ID] = append(slices.Clone(wanted), rt.Name)
}

// StartNames redirects a page load to the page that joins the other names of the VM. It is false when
// there are none to join.
func (h *Handler) StartNames(w http.ResponseWriter, r *http.Request, rt names.Route, s Session) bool {
	if rt.Custom {
		return false
	}
	wanted, due := h.joins.due(rt, s.Login)
	if !due {
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), probeLimit)
	defer cancel()
	if !h.joins.plan(loginAt{s.Login, rt.VM.ID}, h.listening(ctx, rt, wanted)) {
		return false
	}
	query := url.Values{"path": {r.URL.RequestURI()}}
	browser.Redirect(w, http.StatusFound, namesPath+"?"+query.Encode())
	return true
}

// listening returns those hosts of the VM whose port listens.
func (h *Handler) listening(ctx context.Context, rt names.Route, wanted []names.Name) []string {
	var ports []uint16
	for _, name := range wanted {
		ports = append(ports, name.Port)
	}
	ports = h.Listening(ctx, rt.VM, ports)
	var hosts []string
	for _, port := range ports {
		if port != gateway.DefaultPort {
			hosts = append(hosts, strconv.Itoa(int(port))+"-"+rt.Plain)
		}
	}
	for _, name := range wanted {
		if name.Port == gateway.DefaultPort { // a name below the plain one
			hosts = append(hosts, name.Host)
		}
	}
	return hosts
}

// due reports whether a login's names are to be looked for, with the VM's wanted names.
func (j *joins) due(rt names.Route, id ID) (wanted []names.Name, due bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := loginAt{id, rt.VM.ID}
	l := j.logins[at]
	if l == nil {
		if len(j.logins) >= maxKnown {
			clear(j.logins) // their names are joined once more
		}
		l = &joined{hosts: map[string]bool{rt.Plain: true}}
		j.logins[at] = l
	}
	l.hosts[rt.Host] = true
	wanted = j.wanted[rt.VM.ID]
	missing := slices.ContainsFunc(wanted, func(n names.Name) bool { return !l.hosts[n.Host] })
	return wanted, missing || time.Since(l.probed) >= probeLife
}

// plan notes which of hosts a login has yet to join. It is false when there is none.
func (j *joins) plan(at loginAt, hosts []string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.logins[at]
	if l == nil {
		return false
	}
	l.probed = time.Now()
	l.pending = slices.DeleteFunc(hosts, func(host string) bool { return l.hosts[host] })
	l.pending = l.pending[:min(len(l.pending), maxJoins)]
	return len(l.pending) > 0
}

// take returns the hosts that plan has noted. They are joined from then on, so that a name that cannot
// be reached delays one page only.
func (j *joins) take(at loginAt) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.logins[at]
	if l == nil {
		return nil
	}
	hosts := l.pending
	l.pending = nil
	for _, host := range hosts {
		l.hosts[host] = true
	}
	return hosts
}

func (j *joins) removeLogin(id ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.logins, func(at loginAt, _ *joined) bool { return at.login == id })
}

func (j *joins) removeVM(vm gateway.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.wanted, vm)
}

// names is the page that joins names and then opens path.
func (h *Handler) names(w http.ResponseWriter, r *http.Request, rt names.Route) {
	path := browser.LocalPath(r.URL.Query().Get("path"))
	if strings.HasPrefix(path, namesPath) {
		path = "/"
	}
	s, _ := h.Session(r, rt)
	hosts := h.joins.take(loginAt{s.Login, rt.VM.ID})
	if len(hosts) == 0 {
		browser.Redirect(w, http.StatusFound, path)
		return
	}
	port := names.PortSeen(r)
	page := pages.Joining(rt, path, names.Origin(rt.Plain, port))
	for _, host := range hosts {
		page.Visit = append(page.Visit, names.Origin(host, port)+joinPath)
	}
	h.Pages.Render(w, r, page)
}

// join starts a session at the route's name, by a handoff. It is the source of an image, which has no
// content.
func (h *Handler) join(w http.ResponseWriter, r *http.Request, rt names.Route) {
	if _, ok := h.Session(r, rt); ok { // also after the handoff, whose redirects remove the referrer
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if h.Policy.CrossSite(r, rt) {
		h.Pages.Render(w, r, pages.CrossSite(rt))
		return
	}
	h.StartHandoff(w, r, rt)
}
