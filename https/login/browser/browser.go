// Package browser has what every way of logging in needs of a visitor's browser: secrets, the cookie
// that binds what a browser has begun to it, a bounded memory of that, the check of where a request
// comes from, and redirects that stay on the site.
//
// It imports no way of logging in and stores nothing on disk.
package browser

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/https/names"
)

// BindingCookie holds a secret of one browser at one host name, for some minutes. The prefix makes
// browsers keep it for that name, over TLS (RFC 6265bis §4.1.3.2).
const BindingCookie = "__Host-lodge-handoff"

// secretBytes is the length of a secret; secretText that of its form in URLs and cookies, base64url.
const (
	secretBytes = 32
	secretText  = 43
)

// NewSecret returns 256 random bits in base64url, which is safe in URLs and cookies.
func NewSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails (it aborts the program instead)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Hash returns what is stored of a secret, its SHA-256. It is false for a string that NewSecret cannot
// return. It allocates nothing.
func Hash(secret string) (hash [32]byte, ok bool) {
	if len(secret) != secretText {
		return hash, false
	}
	var text, again [secretText]byte
	var raw [secretBytes + 1]byte // Decode may write one more
	copy(text[:], secret)
	n, err := base64.RawURLEncoding.Decode(raw[:], text[:])
	if err != nil || n != secretBytes {
		return hash, false
	}
	if base64.RawURLEncoding.Encode(again[:], raw[:n]); again != text { // spare bits were set
		return hash, false
	}
	return sha256.Sum256(raw[:n]), true
}

// SetCookie sets a cookie of one host name; a life of 0 removes it.
func SetCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	cookie := &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if life == 0 {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// Bind sets the binding cookie and returns the hash of its secret, which others may see. What another
// tab of the browser has begun stays bound to it.
func Bind(w http.ResponseWriter, r *http.Request, life time.Duration) string {
	secret := NewSecret()
	if cookie, err := r.Cookie(BindingCookie); err == nil {
		if _, ok := Hash(cookie.Value); ok {
			secret = cookie.Value
		}
	}
	SetCookie(w, BindingCookie, secret, life)
	return bound(secret)
}

// Bound returns what Bind returned for the browser that sends r. It is false without a binding cookie.
func Bound(r *http.Request) (string, bool) {
	cookie, err := r.Cookie(BindingCookie)
	if err != nil {
		return "", false
	}
	hash := bound(cookie.Value)
	return hash, hash != ""
}

// Unbind removes the binding cookie.
func Unbind(w http.ResponseWriter) { SetCookie(w, BindingCookie, "", 0) }

func bound(secret string) string {
	hash, ok := Hash(secret)
	if !ok {
		return ""
	}
	return hex.EncodeToString(hash[:])
}

// SameOrigin reports whether no page elsewhere has sent r: by Origin, and by Sec-Fetch-Site (Fetch
// Metadata). Siblings, such as the VMs' pages, are elsewhere. Browsers send Origin with every POST;
// programs send neither header, and nobody's cookies but their own.
func SameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	host, ok := names.Normalize(r.Host)
	return origin == "" || ok && origin == names.Origin(host, names.PortSeen(r))
}

// Redirect keeps the URL of this page, which may hold a secret, from the next one.
func Redirect(w http.ResponseWriter, status int, to string) {
	w.Header().Set("Location", to)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

// LocalPath returns path unchanged, or "/" for what a browser could take for another site. It is
// never decoded and encoded again: "/%2f…" must not become "//…".
func LocalPath(path string) string {
	if _, err := url.ParseRequestURI(path); err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return "/"
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return "/"
		}
	}
	return path
}

// Peer returns the unit by which limits count what r begins.
func Peer(r *http.Request) gateway.Peer {
	from, _ := netip.ParseAddrPort(r.RemoteAddr) // none: a pipe
	return gateway.PeerAt(from.Addr())
}
