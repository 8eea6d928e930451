package passkey

import (
	_ "embed"
	"net/http"

	"lodge/gateway"
	"lodge/https/login/browser"
)

// Prefix is that of the paths of Handlers.
const Prefix = "/.lodge/passkeys/"

// Script is the script of pages with passkeys: it serves their forms with the attribute data-passkey.
//
//go:embed passkey.js
var Script string

// Handlers returns what the script talks to, by path.
func (h *Handler) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		Prefix + "new":       only(http.MethodPost, h.BeginRegistration),
		Prefix + "add":       only(http.MethodPost, h.FinishRegistration),
		Prefix + "challenge": only(http.MethodPost, h.BeginLogin),
		Prefix + "login":     only(http.MethodPost, h.FinishLogin),
		Prefix + "list":      only(http.MethodGet, h.ServeList),
	}
}

func only(method string, handler http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			browser.WriteJSON(w, http.StatusMethodNotAllowed, gateway.Invalid("this path takes %s", method))
			return
		}
		handler(w, r)
	})
}
