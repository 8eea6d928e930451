package https

import (
	"bufio"
	"cmp"
	"net"
	"net/http"
	"time"

	"lodge/https/names"
)

// logged returns the writer for the response to r, and a function to call at the end of the
// request. That function counts the request and, with Config.AccessLog, logs one line. Queries,
// cookies and bodies never reach the log: they carry secrets.
func (s *Server) logged(w http.ResponseWriter, r *http.Request, rt names.Route) (http.ResponseWriter, func()) {
	start, counted := time.Now(), &countingWriter{ResponseWriter: w}
	vm, host := rt.VM.Name, cmp.Or(rt.Host, r.Host) // the closure must not hold the whole route
	return counted, func() {
		s.metrics.served(counted.status)
		if !s.AccessLog {
			return
		}
		s.Logger.Info("web request served", "vm", vm, "method", r.Method, "host", host, "path", r.URL.Path,
			"status", counted.status, "bytes", counted.bytes, "duration", time.Since(start), "remote", r.RemoteAddr)
	}
}

// countingWriter records the status and the size of a response. The status is 0 when none was sent,
// and 101 for a connection that left HTTP, whose bytes are not counted.
type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK { // not of 1xx, which others follow
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *countingWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Hijack implements http.Hijacker.
func (w *countingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return c, buffered, err
}
