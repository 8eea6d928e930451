package issuer

import (
	"fmt"
	"net/http"
	"strconv"
)

// The paths below the issuer's URL that strangers read.
const (
	discoveryPath = "/.well-known/openid-configuration" // OpenID Connect Discovery 1.0 §4
	keysPath      = "/.well-known/jwks.json"
)

// discovery returns the document at discoveryPath. It has no endpoint for people: nobody logs in here,
// and relying parties of tokens alone read the keys and the algorithm.
func discovery(url string) []byte {
	return mustMarshal(struct {
		Issuer        string   `json:"issuer"`
		Keys          string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
		Scopes        []string `json:"scopes_supported"`
		Claims        []string `json:"claims_supported"`
	}{
		Issuer:        url,
		Keys:          url + keysPath,
		ResponseTypes: []string{"id_token"},
		SubjectTypes:  []string{"public"},
		Algorithms:    []string{algorithm},
		Scopes:        []string{"openid"},
		Claims:        []string{"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "lodge"},
	})
}

// Handlers returns the handlers for strangers, by their paths below the issuer's URL. They read
// nothing of a request but its method.
func (i *Issuer) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		discoveryPath: i.handler(func() ([]byte, error) { return i.discovery, nil }),
		keysPath: i.handler(func() ([]byte, error) {
			p, err := i.publish()
			if err != nil {
				return nil, err
			}
			return p.set, nil
		}),
	}
}

// handler serves a public document, to scripts of any origin too.
func (i *Issuer) handler(document func() ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "Only GET and HEAD are allowed.", http.StatusMethodNotAllowed)
			return
		}
		body, err := document()
		if err != nil { // it is in the log
			h.Set("Cache-Control", "no-store")
			h.Set("Retry-After", strconv.Itoa(int(RetryAfter.Seconds())))
			http.Error(w, "The keys are temporarily unavailable.", http.StatusServiceUnavailable)
			return
		}
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(cacheLife.Seconds())))
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the client has gone
	})
}
