package https

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/names"
)

//go:embed pages/page.html
var pageFiles embed.FS

// page is an answer of the gateway's own: HTML for people, JSON or text for programs.
type page struct {
	Status  int
	Kind    gateway.Kind
	Title   string   // a person reads it first; programs get it too
	Text    []string // what it means, a paragraph each
	Command string   // what to run on the host, or in the VM
	Where   string   // where to run it
	Links   []link
	Refresh int    // seconds after which the page tries again by itself; 0: never
	Token   string // of a login link: the page has a button
	Owner   bool   // the reader is the owner
}

type link struct{ Text, URL string }

// say writes p.
func (s *Server) say(w http.ResponseWriter, r *http.Request, p page) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.Status == http.StatusUnauthorized { // RFC 9110 §15.5.2 wants one; browsers do not know it and show the page
		h.Set("WWW-Authenticate", `Lodge realm="`+r.Host+`"`)
	}
	if p.Refresh > 0 {
		h.Set("Retry-After", strconv.Itoa(p.Refresh))
	}
	if access.WantsPage(r) {
		if r.Method != http.MethodGet {
			p.Refresh = 0 // the browser would ask for something else than before
		}
		s.sayHTML(w, p)
		return
	}
	hint := p.Command
	if len(p.Text) > 0 {
		hint = strings.TrimSpace(p.Text[0] + " " + hint)
	}
	if access.Accepts(r, "application/json") {
		h.Set("Content-Type", "application/json")
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(gateway.Error{Kind: p.Kind, Msg: p.Title, Hint: hint}) // the client has gone
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(p.Status)
	_, _ = w.Write([]byte(p.Title + "\n" + hint + "\n")) // the client has gone
}

func (s *Server) sayHTML(w http.ResponseWriter, p page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin") // not no-referrer: that makes browsers hide the form's origin too
	w.WriteHeader(p.Status)
	if err := s.page.Execute(w, p); err != nil {
		s.Logger.Debug("page not sent", "status", p.Status, "err", err)
	}
}

// failed answers a request that the VM did not.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor, err error) {
	if r.Context().Err() != nil || errors.Is(err, context.Canceled) {
		w.WriteHeader(http.StatusBadGateway) // the client has gone, so nobody reads it
		return
	}
	s.Logger.Debug("request failed", "vm", rt.VM.Name, "host", rt.Host, "method", r.Method, "err", err)
	s.say(w, r, s.why(r.Context(), rt, who, err))
}
