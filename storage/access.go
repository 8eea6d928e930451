package storage

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/storage/s3"
)

// access is what the access log has of a request: who it is from and what it is about, as far as
// that was found out, and the answer.
type access struct {
	http.ResponseWriter
	vm     gateway.Identity
	target s3.Target
	status int // 0: nothing was written yet
	bytes  int64

	isolated bool // see isolate
	private  bool // a session has opened what is answered: no cache may show it to others
}

// WriteHeader implements http.ResponseWriter.
func (a *access) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
		if a.isolated {
			isolate(a.Header())
		}
		if h := a.Header(); a.private && h.Get("Cache-Control") != "no-store" {
			h.Set("Cache-Control", "private, no-cache")
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *access) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom, so that files are still sent by sendfile(2).
func (a *access) ReadFrom(src io.Reader) (int64, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(a.ResponseWriter, src)
	a.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *access) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// log writes the line of a request. It has no query, since that may be a signature.
func (a *access) log(log *slog.Logger, r *http.Request, duration time.Duration) {
	if a.status == 0 {
		a.status = http.StatusOK // what net/http answers
	}
	log.Info("s3 request served", gateway.LogVM(a.vm), slog.String("remote", r.RemoteAddr), slog.String("method", r.Method),
		slog.String("bucket", a.target.Bucket), slog.String("object", a.target.Key), slog.Int("status", a.status),
		slog.Int64("bytes", a.bytes), slog.Duration("duration", duration))
}
