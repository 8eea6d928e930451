package sigv4

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

// ErrChunked is the error of an aws-chunked body that is malformed, or shorter or longer than
// announced.
var ErrChunked = errors.New("the aws-chunked body is malformed")

// The payload hashes that announce an aws-chunked body.
const (
	StreamingSigned        = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	StreamingSignedTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	StreamingTrailer       = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

const (
	maxChunkLine    = 1 << 10
	maxTrailerBytes = 8 << 10
	maxTrailers     = 16
	maxChunkBytes   = 5 << 30 // the largest object that one PUT can hold
	emptySHA256     = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// Streaming reports whether a payload hash announces an aws-chunked body of a kind that Reader
// decodes.
func Streaming(payloadHash string) bool {
	return payloadHash == StreamingSigned || payloadHash == StreamingSignedTrailer || payloadHash == StreamingTrailer
}

// Trailer is a header that came behind a body.
type Trailer struct{ Name, Value string }

// Reader decodes an aws-chunked body. It fails with ErrChunked, or with ErrMismatch if it has a
// chain and a signature is wrong. io.EOF comes only after exactly the announced number of bytes and
// a well-formed end. So does the last of these bytes: whoever counts them must not take a body for
// complete that is not proven.
type Reader struct {
	src      *bufio.Reader
	chain    *Chain // nil: the key is a dummy, without a secret to verify signatures by
	size     int64  // announced bytes not yet read
	left     int64  // of the current chunk
	sig      string // of the current chunk
	hash     hash.Hash
	trailers []Trailer
	unproven bool // there are trailers that no signature covers yet
	err      error
}

// NewReader decodes body, whose payload has size bytes. With a chain, it verifies the chunk
// signatures of the signed kinds.
func NewReader(body io.Reader, payloadHash string, size int64, chain *Chain) *Reader {
	if payloadHash == StreamingTrailer {
		chain = nil // this kind carries no chunk signatures
	}
	return &Reader{src: bufio.NewReaderSize(body, 32<<10), chain: chain, size: size, hash: sha256.New()}
}

// Trailers returns the headers behind the body, once Read has returned io.EOF.
func (r *Reader) Trailers() []Trailer { return r.trailers }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.read(p)
	r.err = err
	return n, err
}

func (r *Reader) read(p []byte) (int, error) {
	if r.left == 0 {
		if err := r.nextChunk(); err != nil {
			return 0, err
		}
	}
	n, err := r.src.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.size -= int64(n)
	if r.chain != nil {
		r.hash.Write(p[:n])
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: it ends inside a chunk", ErrChunked)
	}
	if err == nil && r.left == 0 {
		err = r.endChunk()
	}
	if err == nil && r.size == 0 {
		err = r.nextChunk() // the last one
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return n, err
}

// nextChunk reads the line before a chunk; io.EOF after the last one.
func (r *Reader) nextChunk() error {
	line, err := r.line(maxChunkLine)
	if err != nil {
		return err
	}
	digits, extension, _ := strings.Cut(line, ";")
	size, err := strconv.ParseUint(digits, 16, 63)
	if err != nil || size > maxChunkBytes {
		return fmt.Errorf("%w: a chunk's size is %.40q", ErrChunked, digits)
	}
	if r.chain != nil {
		sig, ok := strings.CutPrefix(extension, "chunk-signature=")
		if !ok {
			return fmt.Errorf("%w: a chunk has no signature", ErrChunked)
		}
		r.sig = sig
	}
	if int64(size) > r.size {
		return fmt.Errorf("%w: it is longer than announced", ErrChunked)
	}
	if r.left = int64(size); r.left == 0 {
		return r.end()
	}
	return nil
}

// endChunk verifies the chunk just read and skips the line end behind it.
func (r *Reader) endChunk() error {
	if r.chain != nil {
		err := r.chain.next(algorithm+"-PAYLOAD", r.sig, emptySHA256, hex.EncodeToString(r.hash.Sum(nil)))
		if err != nil {
			return err
		}
		r.hash.Reset()
	}
	line, err := r.line(2)
	if err == nil && line != "" {
		err = fmt.Errorf("%w: a chunk is longer than its size", ErrChunked)
	}
	return err
}

// end verifies the empty last chunk, reads the trailers and returns io.EOF.
func (r *Reader) end() error {
	if r.size != 0 {
		return fmt.Errorf("%w: it is shorter than announced", ErrChunked)
	}
	if r.chain != nil {
		if err := r.chain.next(algorithm+"-PAYLOAD", r.sig, emptySHA256, emptySHA256); err != nil {
			return err
		}
	}
	gap := false // before the signature of the trailer: AWS has none, minio-go an empty line
	for budget := maxTrailerBytes; ; {
		line, err := r.line(budget)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			line, err = "", nil // some clients leave out the last line end
		}
		switch {
		case err != nil:
			return err
		case line == "" && r.unproven && !gap:
			gap = true
			continue
		case line == "" && r.unproven:
			return fmt.Errorf("%w: of the trailer, which has none", ErrMismatch)
		case line == "":
			return io.EOF
		}
		if err := r.trailer(line); err != nil {
			return err
		}
		budget -= len(line)
	}
}

func (r *Reader) trailer(line string) error {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	if !ok || name == "" || len(r.trailers) >= maxTrailers {
		return fmt.Errorf("%w: a trailer is %.80q", ErrChunked, line)
	}
	if name != "x-amz-trailer-signature" {
		r.trailers = append(r.trailers, Trailer{name, value})
		r.unproven = r.chain != nil
		return nil
	}
	if r.chain == nil {
		return nil
	}
	var signed strings.Builder
	for _, t := range r.trailers {
		signed.WriteString(t.Name + ":" + t.Value + "\n")
	}
	r.unproven = false
	return r.chain.next(algorithm+"-TRAILER", value, hexSHA256([]byte(signed.String())))
}

// line reads up to a line end, without it; at most limit bytes.
func (r *Reader) line(limit int) (string, error) {
	var line []byte
	for {
		b, err := r.src.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return "", fmt.Errorf("%w: it ends too early: %w", ErrChunked, io.ErrUnexpectedEOF)
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("%w: it ends inside a line", ErrChunked)
		case err != nil:
			return "", fmt.Errorf("read aws-chunked body: %w", err)
		}
		if b == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		if line = append(line, b); len(line) > limit {
			return "", fmt.Errorf("%w: a line is longer than %d bytes", ErrChunked, limit)
		}
	}
}
