package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"lodge/gateway"
)

// Limits on request bodies. Escaped as JSON, user data grows up to sixfold.
const (
	maxBodyBytes = 64 << 10
	maxSpecBytes = 6*gateway.MaxUserDataBytes + maxBodyBytes
)

// decode reads a JSON body into v. An empty body leaves v as it is; unknown fields, trailing data and bodies over limit are refused.
func decode(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil && d.More() {
		err = errors.New("data after the end")
	}
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.As(err, new(*http.MaxBytesError)):
		return gateway.Invalid("the request is larger than %d bytes", limit)
	default:
		return gateway.Invalid("invalid request: %v", err).Because(err)
	}
}

// answer writes v as JSON. A write error means that the caller is gone.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// recorder notes what an answer was for the log.
type recorder struct {
	http.ResponseWriter
	status    int
	bytes     int64
	sentError bool // within the answer, after the status
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}
