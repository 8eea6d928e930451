package s3

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/md5" // S3's ETag
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"

	"github.com/minio/sio"

	"lodge/storage/store"
)

// A sealed body is in the format DARE 2.0: packages of 64 KiB, each encrypted and authenticated with
// its number, so that a range can be read without the rest. Each object has a random key of its own,
// of which the body's and those of an upload's parts are derived. Its record has that key encrypted:
// with the host's key (SSE-S3), or with the customer's (SSE-C), which is never stored.
//
// Beside the store's buffer of 64 KiB, a body that is being sealed or read has one of a package, 64 KiB more,
// in memory: 128 KiB for each request, of which a VM has 256 in progress at most.
//
// The record has no VM, bucket or key in it: copies share bodies, and forks of a VM copy records.

// The first byte of a record: whose key encrypts the object's.
const (
	sealedByHost     byte = 1
	sealedByCustomer byte = 2
)

const (
	packageBytes  = 64 << 10 // of the body, in each package but the last
	packageExtra  = 32       // its header and its tag
	sealKeyBytes  = 32
	wholeBody     = 0 // the number of a body that is not a part
	sealTagPrefix = "lodge s3 seal "
)

// errSeal is the error for a record that the key at hand does not open.
var errSeal = errors.New("the key does not open the object's")

// secret is the key of an object, and the record of it. A nil one is that of a body that is not
// sealed.
type secret struct {
	kind   byte
	key    []byte
	record []byte
}

// newSecret makes the key of an object, and encrypts it with the outer key of 32 bytes.
func newSecret(kind byte, outer []byte) (*secret, error) {
	wrap, err := wrapper(outer)
	if err != nil {
		return nil, err
	}
	s := &secret{kind: kind, key: make([]byte, sealKeyBytes)}
	_, _ = rand.Read(s.key) // it never fails
	s.record = wrap.Seal([]byte{kind}, nil, s.key, sealTag(kind))
	return s, nil
}

// openSecret reads a record with the outer key: errSeal if that is another one.
func openSecret(record, outer []byte) (*secret, error) {
	wrap, err := wrapper(outer)
	if err != nil {
		return nil, err
	}
	if len(record) == 0 {
		return nil, errSeal
	}
	key, err := wrap.Open(nil, nil, record[1:], sealTag(record[0]))
	if err != nil {
		return nil, errSeal
	}
	return &secret{record[0], key, record}, nil
}

// SealID identifies a host's key, and reveals nothing of it.
func SealID(key [sealKeyBytes]byte) []byte {
	sum := sha256.Sum256(append([]byte(sealTagPrefix+"key "), key[:]...))
	return sum[:]
}

func wrapper(outer []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(outer)
	if err != nil {
		return nil, fmt.Errorf("encrypt object key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func sealTag(kind byte) []byte { return []byte(sealTagPrefix + strconv.Itoa(int(kind))) }

// config is that of the stream with a number: of a part, or wholeBody.
func (s *secret) config(number int) (sio.Config, error) {
	key, err := hkdf.Expand(sha256.New, s.key, "part "+strconv.Itoa(number), sealKeyBytes)
	return sio.Config{MinVersion: sio.Version20, Key: key}, err
}

// sealedSize is how many bytes a sealed body has in the store.
func sealedSize(plain int64) int64 {
	return plain + (plain+packageBytes-1)/packageBytes*packageExtra
}

// seal turns the write of a body into that of the sealed one: a part, or wholeBody. Its size, MD5 and
// ETag are those of the plain body, but SSE-C has a random ETag: an MD5 would reveal what is sealed.
func (s *secret) seal(w store.Write, number int) (store.Write, error) {
	if s == nil {
		return w, nil
	}
	in := &plainReader{src: w.Body, want: w.MD5, md5: md5.New()} // S3's ETag
	config, err := s.config(number)
	if err != nil {
		return w, err
	}
	if w.Body, err = sio.EncryptReader(in, config); err != nil {
		return w, fmt.Errorf("encrypt body: %w", err)
	}
	if w.Size >= 0 {
		w.Size = sealedSize(w.Size)
	}
	w.MD5, w.Plain = nil, func() int64 { return in.n }
	w.ETag = func() string { return hex.EncodeToString(in.md5.Sum(nil)) }
	if s.kind == sealedByCustomer {
		w.ETag = func() string {
			etag := make([]byte, md5.Size)
			_, _ = rand.Read(etag) // it never fails
			return hex.EncodeToString(etag)
		}
	}
	return w, nil
}

// plainReader is a body before it is sealed.
type plainReader struct {
	src  io.Reader
	n    int64
	md5  hash.Hash
	want []byte
}

// Read implements io.Reader. The encryption takes io.ErrUnexpectedEOF for the end, so it never returns
// that.
func (r *plainReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.n += int64(n)
	r.md5.Write(p[:n])
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = store.ErrSize
	case errors.Is(err, io.EOF) && r.want != nil && !bytes.Equal(r.want, r.md5.Sum(nil)):
		err = store.ErrDigest
	}
	return n, err
}

// sealedPiece is a stream of a sealed body: all of it, or a part.
type sealedPiece struct {
	number int
	size   int64 // of the plain bytes
}

// unsealer reads a range of a sealed body.
type unsealer struct {
	*secret
	body   *store.Body
	pieces []sealedPiece
	from   int64     // where the first piece begins in the body as it is stored
	skip   int64     // plain bytes of the first piece before the range
	left   int64     // plain bytes of the range
	now    io.Reader // what is left in the first piece, or nil
}

// plain returns a reader of a range of the plain bytes of body. What was altered is refused before
// its first byte is returned: store.ErrDamaged.
func (s *secret) plain(body *store.Body, r span) io.Reader {
	if s == nil {
		return &section{body, r}
	}
	u := &unsealer{secret: s, body: body, skip: r.offset, left: r.length}
	for _, p := range body.PartList() {
		u.pieces = append(u.pieces, sealedPiece{p.Number, p.Size})
	}
	if len(u.pieces) == 0 {
		u.pieces = []sealedPiece{{wholeBody, body.Size}}
	}
	return u
}

// section is a range of a body that is not sealed.
type section struct {
	body *store.Body
	span
}

// Read implements io.Reader.
func (s *section) Read(p []byte) (int, error) {
	if s.length == 0 {
		return 0, io.EOF
	}
	if _, err := s.body.Seek(s.offset, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := s.body.Read(p[:min(int64(len(p)), s.length)])
	s.offset, s.length = s.offset+int64(n), s.length-int64(n)
	return n, err
}

// Read implements io.Reader.
func (u *unsealer) Read(p []byte) (int, error) {
	for u.left > 0 {
		if u.now == nil {
			if err := u.enter(); err != nil {
				return 0, err
			}
		}
		n, err := u.now.Read(p[:min(int64(len(p)), u.left)])
		u.left -= int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, unsealError(err)
		}
		if err != nil {
			u.next()
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// next goes on to the following piece.
func (u *unsealer) next() {
	u.from += sealedSize(u.pieces[0].size)
	u.pieces, u.now, u.skip = u.pieces[1:], nil, 0
}

// enter opens the piece in which the range goes on, at the package with its first byte.
func (u *unsealer) enter() error {
	for len(u.pieces) > 0 && u.skip >= u.pieces[0].size {
		skip := u.skip - u.pieces[0].size
		u.next()
		u.skip = skip
	}
	if len(u.pieces) == 0 {
		return fmt.Errorf("%w: a sealed body is too short", store.ErrDamaged)
	}
	first := u.skip / packageBytes
	at := first * (packageBytes + packageExtra)
	if _, err := u.body.Seek(u.from+at, io.SeekStart); err != nil {
		return err
	}
	config, err := u.config(u.pieces[0].number)
	if err != nil {
		return err
	}
	config.SequenceNumber = uint32(first) // a part has at most 5 GiB
	u.now, err = sio.DecryptReader(io.LimitReader(u.body, sealedSize(u.pieces[0].size)-at), config)
	if err != nil {
		return fmt.Errorf("decrypt body: %w", err)
	}
	if _, err := io.CopyN(io.Discard, u.now, u.skip-first*packageBytes); err != nil {
		return unsealError(err)
	}
	return nil
}

// unsealError makes store.ErrDamaged of what the decryption rejects, and leaves errors of the disk.
func unsealError(err error) error {
	var rejected sio.Error
	if errors.As(err, &rejected) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return err
}
