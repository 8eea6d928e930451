// Package pages renders the gateway's own answers: HTML for people, JSON or text for programs.
//
// A stranger is not shown whether a name exists or is private, and everyone is shown those ports alone
// that they may open. A page loads nothing from elsewhere, and of what the request sent its text quotes the host name's
// label alone.
package pages

import (
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"lodge/gateway"
	"lodge/https/access"
)

//go:embed page.html
var files embed.FS

//go:embed copy.js
var copyScript string

// Page is one answer.
type Page struct {
	Status  int
	Kind    gateway.Kind
	Title   string   // the heading; programs get it too
	Text    []string // what it means, a paragraph each
	Forms   []Form
	Buttons []Link // that lead on; the first is the main one
	Above   string // the sentence above Links
	Links   []Link
	Before  string // the sentence before Command
	Command string // what to run
	Where   string // where to run it: on the host, or in the VM
	Refresh int    // seconds after which the browser tries again; 0: never
	To      string // the path that it then opens; empty for that of the page
	// Visit are the images that a page loads before it opens Next, a path. They may redirect to Via.
	Visit     []string
	Next, Via string
	Nonce     string // of the page's scripts; Render sets it
	Sections  []Section
	Passkeys  bool // the page has the script that serves forms of passkeys
	// ClearCookies makes the browser remove the cookies of all names below the domain.
	ClearCookies bool
}

// Link leads to another page.
type Link struct{ Text, URL string }

// Renderer writes Pages. It is safe for concurrent use.
type Renderer struct {
	html   *template.Template
	copies string // the source in a policy that allows copyScript
	logger *slog.Logger
}

// New returns a Renderer, of which script serves the forms of passkeys. It logs pages that could not be
// sent.
func New(script string, logger *slog.Logger) (*Renderer, error) {
	html, err := template.New("page.html").Funcs(template.FuncMap{
		"passkeyScript": func() template.JS { return template.JS(script) },     //nolint:gosec // it is the program's own
		"copyScript":    func() template.JS { return template.JS(copyScript) }, //nolint:gosec // as above
	}).ParseFS(files, "page.html")
	if err != nil {
		return nil, fmt.Errorf("parse page: %w", err)
	}
	hash := sha256.Sum256([]byte(copyScript))
	return &Renderer{html, "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'", logger}, nil
}

// Render writes p, in the form that r accepts.
func (re *Renderer) Render(w http.ResponseWriter, r *http.Request, p Page) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	// RFC 9110 §15.5.2; browsers ignore the unknown scheme and show the page
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Lodge realm="`+r.Host+`"`)
	}
	if p.ClearCookies {
		h.Set("Clear-Site-Data", `"cookies"`)
	}
	if p.Refresh > 0 {
		h.Set("Retry-After", strconv.Itoa(p.Refresh))
	}
	if access.AsksForPage(r) {
		if r.Method != http.MethodGet && p.To == "" {
			p.Refresh = 0 // the browser would repeat it as a GET
		}
		re.renderHTML(w, p)
		return
	}
	hint := strings.TrimSpace(p.Before + " " + p.Command)
	if len(p.Text) > 0 {
		hint = strings.TrimSpace(p.Text[0] + " " + hint)
	}
	if access.Accepts(r, "application/json") {
		h.Set("Content-Type", "application/json")
		w.WriteHeader(p.Status)
		// the client has gone
		_ = json.NewEncoder(w).Encode(gateway.Error{Kind: p.Kind, Msg: p.Title, Hint: hint})
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(p.Status)
	_, _ = w.Write([]byte(p.Title + "\n" + hint + "\n")) // the client has gone
}

func (re *Renderer) renderHTML(w http.ResponseWriter, p Page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	policy := "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	// not no-referrer, with which browsers hide the form's origin too
	h.Set("Referrer-Policy", "same-origin")
	scripts := ""
	if p.Next != "" || p.Passkeys {
		p.Nonce = rand.Text()
		scripts += " 'nonce-" + p.Nonce + "'"
	}
	if p.Command != "" { // a hash: the page for a name without a VM is byte by byte that for a private one
		scripts += " " + re.copies
	}
	if scripts != "" {
		policy += "; script-src" + scripts
	}
	if p.Passkeys {
		policy += "; connect-src 'self'"
	}
	if len(p.Visit) > 0 {
		policy += "; img-src " + strings.Join(p.Visit, " ") + " " + p.Via + "/"
		h.Set("Referrer-Policy", "strict-origin") // the images' names see which page it is
	}
	h.Set("Content-Security-Policy", policy)
	w.WriteHeader(p.Status)
	if err := re.html.Execute(w, p); err != nil {
		re.logger.Debug("page not sent", "status", p.Status, "err", err)
	}
}
