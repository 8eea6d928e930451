package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// ErrBadBody is the error of a request whose body could not be read: chunks that are not well formed
// (RFC 9112 §7.1), or an end before the announced length.
var ErrBadBody = errors.New("the body of the request is malformed")

// clientBody is the body of a request. It keeps the error of the client's side apart from those of
// the VM's.
type clientBody struct {
	io.ReadCloser
	failed atomic.Pointer[error]
}

// watchBody returns a copy of r with a clientBody in front of its body. Without a body it returns r
// and nil.
func watchBody(r *http.Request) (*http.Request, *clientBody) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, nil
	}
	body := &clientBody{ReadCloser: r.Body}
	r = r.WithContext(r.Context())
	r.Body = body
	return r, body
}

// Read implements io.Reader.
func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.failed.Store(&err)
	}
	return n, err
}

// err returns ErrBadBody, with its cause, after a failed read; nil otherwise.
func (b *clientBody) err() error {
	if b == nil {
		return nil
	}
	if cause := b.failed.Load(); cause != nil {
		return fmt.Errorf("%w: %w", ErrBadBody, *cause)
	}
	return nil
}
