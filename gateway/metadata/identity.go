package metadata

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/issuer"
)

// identityPath is the path of tokens by which a VM proves itself elsewhere.
const identityPath = "/lodge/v1/token"

// jwtType is the media type of a bare token (RFC 7519 §10.3.1).
const jwtType = "application/jwt"

// IdentityToken is the answer to a PUT of identityPath.
type IdentityToken struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
}

// identity issues a token for the audience in the query. The VM is that of the tap: nothing in the
// request can name another.
func (s *Server) identity(w http.ResponseWriter, r *http.Request, m gateway.VM) *refusal {
	if r.Method != http.MethodPut {
		w.Header().Set("Allow", http.MethodPut)
		return refuse(http.StatusMethodNotAllowed, "Method not allowed: use PUT.")
	}
	if refused := checkHeader(r); refused != nil {
		return refused
	}
	audience, lifetime, refused := identityQuery(r.URL.RawQuery)
	if refused != nil {
		return refused
	}
	token, err := s.Issuer.Issue(r.Context(), m, audience, lifetime)
	switch {
	case gateway.KindOf(err) == gateway.KindInvalid:
		return refuse(http.StatusBadRequest, "Bad Request: %v.", err)
	case errors.Is(err, issuer.ErrTooMany):
		w.Header().Set("Retry-After", "1")
		return refuse(http.StatusTooManyRequests, "Too many tokens: use one until shortly before it expires.")
	case err != nil: // it is in the log
		w.Header().Set("Retry-After", strconv.Itoa(int(issuer.RetryAfter.Seconds())))
		return refuse(http.StatusServiceUnavailable, "Temporarily unavailable: the host has no key to sign with. Its log has the reason.")
	}
	if accepts(r, jwtType) {
		w.Header().Set("Content-Type", jwtType)
		_, _ = w.Write([]byte(token.JWT)) // a write error means that the guest has closed the connection
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(IdentityToken{token.JWT, token.Expires}) // as above
	return nil
}

// identityQuery reads audience, which is required, and lifetime, in seconds. What it does not know
// is refused: a misspelled lifetime would be the default.
func identityQuery(raw string) (audience string, lifetime time.Duration, refused *refusal) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return "", 0, refuse(http.StatusBadRequest, "Bad Request: the query is malformed.")
	}
	for name, values := range query {
		if name != "audience" && name != "lifetime" {
			return "", 0, refuse(http.StatusBadRequest, "Bad Request: unknown parameter %q; there are audience and lifetime.", clip(name))
		}
		if len(values) > 1 {
			return "", 0, refuse(http.StatusBadRequest, "Bad Request: %s is given twice.", name)
		}
	}
	if !query.Has("audience") {
		return "", 0, refuse(http.StatusBadRequest, "Bad Request: name the service that reads the token, such as %s?audience=https://service.example", identityPath)
	}
	if query.Has("lifetime") {
		most := int(issuer.MaxLifetime.Seconds())
		seconds, err := strconv.Atoi(query.Get("lifetime"))
		if err != nil || seconds < 1 || seconds > most {
			return "", 0, refuse(http.StatusBadRequest, "Bad Request: lifetime is in seconds, 1 to %d.", most)
		}
		lifetime = time.Duration(seconds) * time.Second
	}
	return query.Get("audience"), lifetime, nil
}

// accepts reports whether the request asks for a media type by name.
func accepts(r *http.Request, mediaType string) bool {
	for _, line := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(line, ",") {
			one, _, _ = strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(one), mediaType) {
				return true
			}
		}
	}
	return false
}
