package https

import (
	"net/http"
	"strings"
)

// A CORS preflight asks an app whether a page of another name may send a request. Browsers send it
// without cookies, so it can carry no session, and a wall that refuses it forbids a private page all
// requests to the other ports of its own VM.
//
// So the preflight of a page of the same VM goes to the app as a stranger's. A program can send one
// too, and many apps answer OPTIONS like GET: the request has only the headers that a preflight needs,
// and no body; of the answer, only the status and the CORS headers are passed on. Strangers elsewhere
// are turned away: a session of the VM must have been used from the client's network (login.SeenFrom), which must not be
// that of a tunnel or a proxy.

// preflight returns what goes to the app: r without body, credentials and identity.
func preflight(r *http.Request) *http.Request {
	out := r.Clone(r.Context())
	out.Header = http.Header{}
	for name, lines := range r.Header {
		if name == "Origin" || name == "User-Agent" || strings.HasPrefix(name, "Access-Control-Request-") {
			out.Header[name] = lines
		}
	}
	out.Body, out.ContentLength, out.TransferEncoding, out.Trailer = http.NoBody, 0, nil, nil
	return out
}

// corsWriter passes on the status and the CORS headers of a response.
type corsWriter struct {
	to     http.ResponseWriter
	header http.Header
	wrote  bool
}

func preflightWriter(w http.ResponseWriter) http.ResponseWriter {
	return &corsWriter{to: w, header: http.Header{}}
}

// Header implements http.ResponseWriter.
func (w *corsWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *corsWriter) WriteHeader(status int) {
	if w.wrote || status < http.StatusOK {
		return
	}
	w.wrote = true
	for name, lines := range w.header {
		if name == "Vary" || name == "Connection" || strings.HasPrefix(name, "Access-Control-") {
			w.to.Header()[name] = lines
		}
	}
	w.to.WriteHeader(status)
}

// FlushError is for http.ResponseController: there is no body to flush.
func (w *corsWriter) FlushError() error { return nil }

// Write implements http.ResponseWriter. It drops the body.
func (w *corsWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}
