package storage

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"lodge/storage/sigv4"
)

// body is a request's body. It ends with its client, and keeps the error, because the engine's
// transport hides it.
type body struct {
	src    io.Reader
	err    atomic.Pointer[error]
	client clientConn
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	if err = b.client.reads(); err == nil {
		n, err = b.src.Read(p)
	}
	if err != nil {
		b.client.hasRead()
		if !errors.Is(err, io.EOF) {
			b.err.Store(&err)
		}
	}
	return n, err
}

// Close implements io.Closer; the server closes the connection's own body.
func (b *body) Close() error { return nil }

// failure returns the error of reading the body, as an S3 error; nil without one.
func (b *body) failure() error {
	p := b.err.Load()
	if p == nil {
		return nil
	}
	switch err := *p; {
	case errors.Is(err, sigv4.ErrMismatch), errors.Is(err, sigv4.ErrChunked):
		return signatureError(err)
	case isS3(err):
		return err
	default:
		return errorf(http.StatusBadRequest, "IncompleteBody", "The body could not be read to its end.")
	}
}

// storedBody sets up the body of an object or a part. aws-chunked is decoded here, where the key
// that signed its chunks is known. The engine checks the hash, the checksums and the length of the
// rest.
func storedBody(out *http.Request, b *body, r *http.Request, chain *sigv4.Chain) error {
	hash := r.Header.Get("X-Amz-Content-Sha256")
	encodings := withoutChunked(out.Header.Get("Content-Encoding"))
	if out.Header.Del("Content-Encoding"); encodings != "" {
		out.Header.Set("Content-Encoding", encodings)
	}
	if hash == "" {
		out.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
	}
	if strings.HasPrefix(hash, "STREAMING-") {
		return chunkedBody(out, b, r, chain, hash)
	}
	out.Header.Del("X-Amz-Decoded-Content-Length")
	if r.ContentLength < 0 {
		return errNoLength("Content-Length")
	}
	if out.Body = b; r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	return nil
}

func chunkedBody(out *http.Request, b *body, r *http.Request, chain *sigv4.Chain, hash string) error {
	if !sigv4.Streaming(hash) {
		return errNotImplemented("Bodies of the kind %.60q are not implemented.", hash)
	}
	size, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil || size < 0 {
		return errNoLength("X-Amz-Decoded-Content-Length")
	}
	decoded := sigv4.NewReader(b.src, hash, size, chain)
	trailer := strings.ToLower(strings.TrimSpace(r.Header.Get("X-Amz-Trailer")))
	if trailer == "" || hash == sigv4.StreamingSigned {
		b.src = decoded
		out.Body, out.ContentLength = b, size
		out.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
		out.Header.Del("X-Amz-Decoded-Content-Length")
		out.Header.Del("X-Amz-Trailer")
		if size == 0 {
			return b.drain(out)
		}
		return nil
	}
	sum, known := sumLength(trailer)
	if !known {
		return errorf(http.StatusBadRequest, "InvalidRequest", "The trailer %.60q is no checksum that is known here.", trailer)
	}
	b.src = &rechunker{src: decoded, trailer: trailer, sum: sum, buf: make([]byte, rechunkBytes)}
	out.Body, out.ContentLength = b, rechunkedLength(size, trailer, sum)
	out.Header.Set("X-Amz-Content-Sha256", sigv4.StreamingTrailer)
	return nil
}

// drain reads an empty body to its end, since only that verifies its last signature.
func (b *body) drain(out *http.Request) error {
	out.Body = http.NoBody
	if _, err := io.Copy(io.Discard, b); err != nil {
		return b.failure()
	}
	return nil
}

// withoutChunked removes aws-chunked from a list of encodings: it belongs to the transfer, not to
// the object.
func withoutChunked(list string) string {
	var kept []string
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); e != "" && !strings.EqualFold(e, "aws-chunked") {
			kept = append(kept, e)
		}
	}
	return strings.Join(kept, ",")
}
