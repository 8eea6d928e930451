package post

import (
	"io"
	"net/http"
	"sync"
)

// Body is the body of a request. net/http may read it after the answer has come, such as an early
// 413: once Close has returned, the reader, which is the caller's, is not used any more.
type Body struct {
	mu     sync.Mutex
	reader io.Reader // nil: closed
}

// NewBody returns a Body that reads from r.
func NewBody(r io.Reader) *Body { return &Body{reader: r} }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reader == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.reader.Read(p) //nolint:wrapcheck // it has to be io.EOF
}

// Close implements io.Closer. It waits for a Read in progress.
func (b *Body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reader = nil
	return nil
}
