package login

import (
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// tokenPrefix begins the tokens of scripts: by it they are told from the credentials of apps.
const tokenPrefix = "lodge_"

// maxBasicBytes limits what is decoded of a Basic header.
const maxBasicBytes = 4 << 10

// tokenIn returns the secret of the token in a value of Authorization: Bearer (RFC 6750 §2.1), or Basic
// (RFC 7617) as password or user name. It is false for the credentials of an app.
func tokenIn(authorization string) (secret string, ok bool) {
	scheme, text, _ := strings.Cut(strings.Trim(authorization, " \t"), " ")
	text = strings.Trim(text, " \t")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return cutToken(text)
	case strings.EqualFold(scheme, "Basic") && len(text) <= maxBasicBytes:
		pair, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			pair, err = base64.RawStdEncoding.DecodeString(text)
		}
		if err != nil {
			return "", false
		}
		user, password, _ := strings.Cut(string(pair), ":")
		if secret, ok = cutToken(password); ok {
			return secret, true
		}
		return cutToken(user)
	}
	return "", false
}

func cutToken(text string) (secret string, ok bool) {
	if secret, ok = strings.CutPrefix(text, tokenPrefix); !ok {
		return "", false
	}
	return secret, true
}

// bearer returns the token of a request.
func bearer(h http.Header) (secret string, ok bool) {
	for _, line := range h["Authorization"] {
		if secret, ok := tokenIn(line); ok {
			return secret, true
		}
	}
	return "", false
}

// StripTokens removes Lodge's tokens from a request for a VM, valid or not, and leaves the app's own
// credentials as they were sent.
func StripTokens(h http.Header) {
	lines := h["Authorization"]
	if len(lines) == 0 {
		return
	}
	kept := lines[:0:0]
	for _, line := range lines {
		if _, ok := tokenIn(line); !ok {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(h, "Authorization")
		return
	}
	h["Authorization"] = kept
}

// token returns what a token opens here: it is valid for one VM, and for one port or all.
func (h *Handler) token(r *http.Request, rt names.Route, secret string) (k known, ok bool) {
	k, err := h.sessions.look(r.Context(), string(gateway.TokenPass), secret)
	if err != nil && gateway.KindOf(err) != gateway.KindNotFound && r.Context().Err() == nil {
		h.Logger.With(gateway.LogVM(rt.VM.Identity)).Warn("token lookup failed", "err", err)
	}
	_, there := h.Policy.People.Person(k.Person) // also for a public port
	return k, err == nil && there && k.VM == rt.VM.ID && rt.Service == "" && (k.AllPorts || k.Port == rt.Port)
}

// RefuseSecret returns the page for a request whose link, code or token opens nothing, here or at the
// domain: it is page for so many wrong ones of one address, and 429 from then on. A right one passes whatever
// else comes from there.
func (h *Handler) RefuseSecret(r *http.Request, page pages.Page) pages.Page {
	over, first := h.wrong.count(browser.Peer(r), time.Now())
	if first {
		gateway.Audit(r.Context(), h.Logger, gateway.EventSecretsRefused, slog.String("host", r.Host), slog.String("remote", r.RemoteAddr))
	}
	if over {
		return pages.TooManyWrong()
	}
	return page
}

const (
	maxWrong   = 60 // wrong secrets of one address within wrongSpan
	wrongSpan  = time.Minute
	maxWrongBy = 1 << 16 // addresses
)

// wrong counts wrong secrets by address.
type wrong struct {
	mu    sync.Mutex
	since time.Time
	by    map[gateway.Peer]int
}

// count counts one more. first is true for the first one over the limit.
func (w *wrong) count(peer gateway.Peer, now time.Time) (over, first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.since) >= wrongSpan || len(w.by) >= maxWrongBy {
		w.since, w.by = now, map[gateway.Peer]int{}
	}
	w.by[peer]++
	return w.by[peer] > maxWrong, w.by[peer] == maxWrong+1
}
