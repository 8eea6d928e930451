package store

import (
	"bytes"
	"context"
	"crypto/md5" // S3's ETag
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/minio/crc64nvme"
	"golang.org/x/sys/unix"

	"lodge/gateway"
)

// payload is a body that was read to its end and is on disk, or small; no record refers to it yet.
type payload struct {
	content
	size  int64
	plain int64 // the size that clients see
	etag  string
	sum   Checksum
	small []byte
	file  file
	room  *reservation

	shared bool // other records have it too: it is not new
}

// extra is how many bytes encryption has added.
func (p *payload) extra() int64 { return p.size - p.plain }

// copyBuffer is what each body in progress has in memory, however slow its client is.
const copyBuffer = 64 << 10

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }} //nolint:gochecknoglobals // a pool

// receive reads a body into a payload. The caller calls drop after the commit, or instead of it.
func (s *Store) receive(ctx context.Context, vm gateway.ID, bucket string, w Write) (*payload, error) {
	p := &payload{}
	if err := s.reserve(p, vm, bucket, max(w.Size, 0), max(w.Size, 0)); err != nil {
		return nil, err
	}
	if err := s.read(ctx, p, w); err != nil {
		s.drop(p, false)
		return nil, err
	}
	return p, nil
}

// drop gives back what a payload holds, and its file unless it was committed.
func (s *Store) drop(p *payload, committed bool) {
	p.room.end()
	if committed || p.shared || p.kind != kindFile {
		return
	}
	if err := os.Remove(s.blobs.newPath(p.id)); err != nil {
		s.log.Warn("blob not removed", "err", err)
	}
}

func (s *Store) read(ctx context.Context, p *payload, w Write) error {
	buf := buffers.Get().(*[copyBuffer]byte) // the pool has no others
	defer buffers.Put(buf)
	in := &source{ctx: ctx, r: w.Body}
	if in.r == nil {
		in.r = bytes.NewReader(nil)
	}
	digest := md5.New() // S3's ETag
	n, err := io.ReadFull(in, buf[:maxSmall+1])
	digest.Write(buf[:n])
	switch {
	case err == nil:
		err = s.readLarge(p, w.Size, in, buf, n, digest)
	case in.ended:
		err = s.readSmall(p, buf[:n])
	}
	if err != nil {
		return err
	}
	return p.verify(w, digest)
}

func (s *Store) readSmall(p *payload, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if err := s.setSmall(p, bytes.Clone(body)); err != nil {
		return err
	}
	return s.grow(p, p.size)
}

// setSmall makes body, which is not empty, that of p.
func (s *Store) setSmall(p *payload, body []byte) (err error) {
	p.size, p.small = int64(len(body)), body
	p.content = content{kind: kindSmall, crc: crc64nvme.Checksum(body)}
	p.id, err = s.ids.take()
	return err
}

// readLarge writes a file. Its first n bytes are in buf.
func (s *Store) readLarge(p *payload, size int64, in *source, buf *[copyBuffer]byte, n int, digest hash.Hash) error {
	f, err := s.blobs.create()
	if err != nil {
		return err
	}
	p.content = content{kind: kindFile, id: f.id}
	if size > chunkBytes { // the file system can place it in one piece; it may decline
		_ = unix.Fallocate(int(f.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	}
	err = s.grow(p, int64(n))
	if err == nil {
		_, err = f.Write(buf[:n])
	}
	for err == nil {
		n, err = in.Read(buf[:])
		digest.Write(buf[:n])
		if grown := s.grow(p, f.size+int64(n)); grown != nil {
			err = grown
		} else if _, wrote := f.Write(buf[:n]); wrote != nil {
			err = wrote
		}
	}
	if !in.ended || !errors.Is(err, io.EOF) {
		_ = f.f.Close() // the file is removed
		return err
	}
	p.size = f.size
	err = f.sync()
	p.file = f.file
	return err
}

// grow reserves room for a body of size bytes.
func (s *Store) grow(p *payload, size int64) error {
	more := size + recordBytes - p.room.bytes
	if more <= 0 {
		return nil
	}
	if err := s.hasRoom(more); err != nil {
		return err
	}
	if more < chunkBytes && size > maxSmall { // a MiB at a time, if there is so much
		if err := p.room.add(chunkBytes); err == nil {
			return nil
		}
	}
	return p.room.add(more)
}

// verify compares a body that was read with what the write demands.
func (p *payload) verify(w Write, digest hash.Hash) error {
	if w.Size >= 0 && w.Size != p.size {
		return ErrSize
	}
	got := digest.Sum(nil)
	if w.MD5 != nil && !bytes.Equal(w.MD5, got) {
		return ErrDigest
	}
	if p.plain = p.size; w.Plain != nil {
		p.plain = w.Plain()
	}
	p.etag = hex.EncodeToString(got)
	if w.ETag != nil {
		p.etag = w.ETag()
	}
	if w.Checksum != nil {
		p.sum = w.Checksum()
	}
	return nil
}

// source is a body that ends with its context. ended is set by io.EOF itself: a reader that wraps it has failed.
type source struct {
	ctx   context.Context // of one call
	r     io.Reader
	ended bool
}

func (r *source) Read(p []byte) (int, error) {
	if r.ended {
		return 0, io.EOF
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.ended = r.ended || err == io.EOF
	return n, err
}
