package s3

import (
	"bytes"
	"crypto/md5" //nolint:gosec // S3's Content-MD5
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"lodge/storage/sigv4"
	"lodge/storage/store"
)

// payload is a request's body without aws-chunked. Read returns io.EOF only when its length, its
// hash, its checksum and its trailer are proven; else an error in its place, of S3 already.
type payload struct {
	src     io.Reader
	decoder *sigv4.Reader // src, if the body is aws-chunked
	size    int64
	left    int64
	md5     []byte // nil, or what Content-MD5 announces: the store compares it
	sha256  hash.Hash
	want256 string // hex
	kind    algorithm
	sum     hash.Hash
	want    []byte // nil: in the trailer, or not announced at all
	trailer bool
	err     error
}

// payload prepares the body of the call, which has at most limit bytes. The checksum kind is computed
// if the request has none; the zero one is none.
func (c *call) payload(limit int64, kind algorithm) (*payload, error) {
	p := &payload{src: c.r.Body, size: c.r.ContentLength}
	hashText := c.r.Header.Get("X-Amz-Content-Sha256")
	switch {
	case strings.HasPrefix(hashText, "STREAMING-"):
		if err := p.chunked(c, hashText); err != nil {
			return nil, err
		}
	case p.size < 0:
		return nil, errNoLength("Content-Length")
	case hashText != "" && hashText != sigv4.Unsigned:
		if raw, err := hex.DecodeString(hashText); err != nil || len(raw) != sha256.Size {
			return nil, invalidArgument("x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- kind, or the SHA-256 of the body in hexadecimal.")
		}
		p.sha256, p.want256 = sha256.New(), strings.ToLower(hashText)
	}
	if p.size > limit {
		return nil, badRequest("EntityTooLarge", "The body has %d bytes; at most %d are possible here.", p.size, limit)
	}
	return p, p.announced(c.r.Header, kind)
}

// announced sets up what the headers announce of the body: its MD5 and its checksum. Its size is set, or
// -1 where it is not known.
func (p *payload) announced(h http.Header, kind algorithm) error {
	p.left = p.size
	if text := h.Get("Content-Md5"); text != "" {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != md5.Size {
			return badRequest("InvalidDigest", "The Content-MD5 that you specified is not valid.")
		}
		p.md5 = raw
	}
	return p.checksums(h, kind)
}

// chunked sets up the decoding of an aws-chunked body.
func (p *payload) chunked(c *call, kind string) error {
	if !sigv4.Streaming(kind) {
		return notImplemented("Bodies of the kind %.60q are not implemented.", kind)
	}
	size, err := strconv.ParseInt(c.r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil || size < 0 {
		return errNoLength("X-Amz-Decoded-Content-Length")
	}
	p.size = size
	p.decoder = sigv4.NewReader(c.r.Body, kind, size, c.Chain)
	p.src = p.decoder
	p.trailer = kind != sigv4.StreamingSigned
	return nil
}

// checksums sets up what the headers announce, or the checksum kind.
func (p *payload) checksums(h http.Header, kind algorithm) error {
	announced, want, err := headerChecksum(h)
	if err != nil {
		return err
	}
	trailer := strings.ToLower(strings.TrimSpace(h.Get("X-Amz-Trailer")))
	if !p.trailer {
		trailer = ""
	}
	if trailer != "" {
		name, ok := strings.CutPrefix(trailer, "x-amz-checksum-")
		if !ok {
			return invalidRequest("The trailer %.60q is no checksum that is known here.", trailer)
		}
		if announced.name != "" {
			return invalidRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		if announced, err = algorithmOf(name); err != nil {
			return err
		}
	}
	p.trailer = trailer != ""
	if name := h.Get("X-Amz-Sdk-Checksum-Algorithm"); name != "" {
		if a, err := algorithmOf(name); err != nil {
			return err
		} else if announced.name != "" && a.name != announced.name {
			return invalidRequest("Value for x-amz-sdk-checksum-algorithm header is invalid.")
		} else if announced.name == "" {
			announced = a // as if it were to be computed here
		}
	}
	if announced.name == "" {
		announced = kind
	} else if kind.name != "" && announced.name != kind.name {
		return invalidRequest("Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s",
			strings.ToLower(kind.name), strings.ToLower(announced.name))
	}
	if p.kind, p.want = announced, want; p.kind.name != "" {
		p.sum = p.kind.make()
	}
	return nil
}

// Read implements io.Reader.
func (p *payload) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.src.Read(b)
	p.left -= int64(n)
	if p.sha256 != nil {
		p.sha256.Write(b[:n])
	}
	if p.sum != nil {
		p.sum.Write(b[:n])
	}
	if err != nil {
		p.err = p.end(err)
	}
	if p.err != nil && !errors.Is(p.err, io.EOF) {
		n = 0
	}
	return n, p.err
}

// end turns the error of the source into the one of the body: io.EOF if all is proven.
func (p *payload) end(err error) error {
	switch {
	case errors.Is(err, sigv4.ErrMismatch), errors.Is(err, sigv4.ErrChunked):
		return SignatureError(err)
	case !errors.Is(err, io.EOF):
		if known, ok := errors.AsType[*Error](err); ok {
			return known
		}
		return badRequest("IncompleteBody", "The body could not be read to its end.")
	case p.left != 0 && p.size >= 0:
		return badRequest("IncompleteBody", "The body could not be read to its end.")
	case p.sha256 != nil && hex.EncodeToString(p.sha256.Sum(nil)) != p.want256:
		return badRequest("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	if p.trailer {
		if err := p.readTrailer(); err != nil {
			return err
		}
	}
	if p.want != nil && !bytes.Equal(p.want, p.sum.Sum(nil)) {
		return badRequest("BadDigest", "The %s you specified did not match the calculated checksum.", p.kind.name)
	}
	return io.EOF
}

func (p *payload) readTrailer() error {
	for _, t := range p.decoder.Trailers() {
		if t.Name == p.kind.header() {
			sum, err := p.kind.parse(t.Value)
			p.want = sum
			return err
		}
	}
	return SignatureError(fmt.Errorf("%w: the trailer %q that it announces is missing", sigv4.ErrChunked, p.kind.header()))
}

// checksum is the verified checksum to record, after io.EOF.
func (p *payload) checksum() store.Checksum {
	if p.sum == nil {
		return store.Checksum{}
	}
	return store.Checksum{Algorithm: p.kind.name, Value: p.sum.Sum(nil)}
}

// document reads a whole body, XML or JSON, of at most limit bytes, with check as what reads it.
func (c *call) document(limit int64, check func(io.Reader) ([]byte, error)) ([]byte, error) {
	if !strings.HasPrefix(c.r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") && c.r.ContentLength > limit {
		return nil, badRequest("MaxMessageLengthExceeded", "The body has %d bytes; at most %d are possible here.", c.r.ContentLength, limit)
	}
	p, err := c.payload(limit, algorithm{})
	if err != nil {
		return nil, err
	}
	digest := md5.New() //nolint:gosec // S3's Content-MD5
	text, err := check(io.TeeReader(p, digest))
	switch {
	case p.err != nil && !errors.Is(p.err, io.EOF):
		return nil, p.err
	case err != nil:
		return nil, err
	case p.md5 != nil && !bytes.Equal(p.md5, digest.Sum(nil)):
		return nil, store.ErrDigest
	}
	return text, nil
}
