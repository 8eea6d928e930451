package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sort"

	"github.com/minio/crc64nvme"

	"lodge/gateway"
)

// Body is the body of an object as it is stored: an io.ReadSeekCloser and io.WriterTo. Each MiB of it is compared with its
// checksum before its first byte is returned, unless that was done within the last minute and the file has not been
// written to: what is damaged is ErrDamaged, and never returned. It is for one goroutine.
type Body struct {
	Object

	s       *Store
	content content
	stored  int64 // the size of all pieces
	list    []Part
	pinned  bool
	pieces  []piece
	at      int64 // where Read goes on

	here int // the piece that is open, or -1
	open opened
}

// piece is a file or a small body, and where it lies in the whole.
type piece struct {
	content
	from, size int64
}

// opened is a piece that can be read.
type opened struct {
	io.ReaderAt
	f        *os.File // nil for a small body
	small    []byte   // what ReaderAt reads then
	id       uint64   // of the file
	changed  int64    // when the file was, in nanoseconds
	crcs     []uint64
	verified int // the chunk that was compared last, or -1
}

func openSmall(body []byte) opened { return opened{ReaderAt: bytes.NewReader(body), small: body} }

// small reads a small body.
func (s *Store) small(c content, vm gateway.ID, size int64) ([]byte, error) {
	v, err := value(s.index, numKey(vm, kindSmall, c.id))
	if missing(err) {
		return nil, damaged("a small body is missing")
	}
	if err == nil {
		err = compareSmall(c, v, size)
	}
	return v, err
}

func compareSmall(c content, body []byte, size int64) error {
	if int64(len(body)) != size || crc64nvme.Checksum(body) != c.crc {
		return damaged("a small body has changed")
	}
	return nil
}

// newBody finds the pieces of a body, and pins them. A small body is read.
func (s *Store) newBody(v *version) (*Body, error) {
	b := &Body{Object: v.Object, s: s, content: v.content, stored: v.Size + v.extra, here: -1}
	switch vm := v.Key.VM; v.content.kind {
	case kindSmall:
		small, err := s.small(v.content, vm, b.stored)
		if err != nil {
			return nil, err
		}
		b.here, b.open = 0, openSmall(small)
		b.pieces = []piece{{v.content, 0, b.stored}}
	case kindFile:
		b.pieces = []piece{{v.content, 0, b.stored}}
	case kindList:
		parts, err := s.parts(vm, v.content)
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			b.list = append(b.list, p.Part)
			b.pieces = append(b.pieces, piece{p.content, 0, p.Size + p.extra})
		}
	}
	var total int64
	for i := range b.pieces {
		b.pieces[i].from = total
		total += b.pieces[i].size
	}
	if total != b.stored {
		return nil, damaged("the parts do not add up to the object's size")
	}
	if v.content.kind == kindFile || v.content.kind == kindList {
		b.pinned = true
		s.garbage.pin(blobKey{v.Key.VM, v.content})
	}
	return b, nil
}

// parts reads the list of a multipart object.
func (s *Store) parts(vm gateway.ID, c content) ([]part, error) {
	v, err := value(s.index, numKey(vm, kindList, c.id))
	if missing(err) {
		return nil, damaged("the list of parts is missing")
	}
	if err != nil {
		return nil, err
	}
	return decodeList(v)
}

// PartList returns the parts of a multipart object; none of any other.
func (b *Body) PartList() []Part { return b.list }

// Close releases the body's files. It can be called again.
func (b *Body) Close() error {
	err := b.leave()
	if b.pinned {
		b.pinned = false
		if k := (blobKey{b.Key.VM, b.content}); b.s.garbage.unpin(k) {
			b.s.collect(k.vm, k.content, 0)
		}
	}
	return err
}

// leave closes the piece that is open.
func (b *Body) leave() (err error) {
	if b.open.f != nil {
		err = b.open.f.Close()
	}
	b.here, b.open = -1, opened{}
	return err
}

// Seek sets where the next Read or WriteTo begins.
func (b *Body) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.stored
	}
	if offset < 0 {
		return 0, errors.New("seek before the start of a body")
	}
	b.at = offset
	return offset, nil
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.ready(int64(len(p)))
	if err != nil {
		return 0, err
	}
	got, err := b.open.ReadAt(p[:n], b.at-b.pieces[b.here].from)
	b.at += int64(got)
	if err != nil && int64(got) == n {
		err = nil // an io.EOF at the end of a piece
	}
	return got, cut(err)
}

// WriteTo implements io.WriterTo. It gives w's ReadFrom the files themselves, if w has one: a
// connection's uses sendfile(2).
func (b *Body) WriteTo(w io.Writer) (int64, error) { return b.CopyN(w, b.stored-b.at) }

// CopyN writes the next n bytes to w, like WriteTo.
func (b *Body) CopyN(w io.Writer, n int64) (sent int64, err error) {
	for sent < n {
		most, err := b.ready(n - sent)
		if err != nil {
			return sent, err
		}
		now, err := b.send(w, most)
		sent += now
		b.at += now
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// send writes n bytes of the open piece.
func (b *Body) send(w io.Writer, n int64) (int64, error) {
	from := b.at - b.pieces[b.here].from
	if b.open.f == nil {
		now, err := w.Write(b.open.small[from : from+n])
		return int64(now), err
	}
	if _, err := b.open.f.Seek(from, io.SeekStart); err != nil {
		return 0, err
	}
	now, err := io.Copy(w, &io.LimitedReader{R: b.open.f, N: n})
	if err == nil && now < n {
		err = damaged("a file is shorter than it was")
	}
	return now, err
}

// cut turns the end of a file before the end of a body into ErrDamaged.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return damaged("a file is shorter than it was")
	}
	return err
}

// ready opens the piece at b.at, compares the chunk there, and returns how many of the next most bytes
// can be read from it. At the end it returns io.EOF.
func (b *Body) ready(most int64) (int64, error) {
	if b.at >= b.stored {
		return 0, io.EOF
	}
	here := sort.Search(len(b.pieces), func(i int) bool { return b.pieces[i].from > b.at }) - 1
	if here != b.here {
		if err := b.enter(here); err != nil {
			return 0, err
		}
	}
	p := b.pieces[here]
	from := b.at - p.from
	if b.open.f == nil {
		return min(most, p.size-from), nil
	}
	chunk := from / chunkBytes
	if err := b.verify(int(chunk), p.size); err != nil {
		return 0, err
	}
	return min(most, (chunk+1)*chunkBytes-from, p.size-from), nil
}

// verify compares a chunk of the open file, unless a reader has just done so.
func (b *Body) verify(chunk int, size int64) error {
	o, now := &b.open, b.s.cfg.Now()
	if o.verified == chunk || len(o.crcs) == 0 {
		return nil
	}
	if b.s.recent.has(o.id, chunk, o.changed, now) {
		o.verified = chunk
		return nil
	}
	err := o.verify(chunk, size)
	if err == nil {
		b.s.recent.add(o.id, chunk, o.changed, now)
	}
	return err
}

// enter opens a piece, and compares its size.
func (b *Body) enter(i int) error {
	if err := b.leave(); err != nil {
		return err
	}
	p, vm := b.pieces[i], b.Key.VM
	if p.kind == kindSmall {
		small, err := b.s.small(p.content, vm, p.size)
		if err != nil {
			return err
		}
		b.here, b.open = i, openSmall(small)
		return nil
	}
	o, err := b.s.openFile(vm, p.id, p.size)
	if err == nil {
		b.here, b.open = i, o
	}
	return err
}

// openFile opens the file of a large body that has size bytes.
func (s *Store) openFile(vm gateway.ID, id uint64, size int64) (opened, error) {
	v, err := value(s.index, numKey(vm, kindFile, id))
	if missing(err) {
		return opened{}, damaged("the record of a file is missing")
	}
	if err != nil {
		return opened{}, err
	}
	record, err := decodeFile(v)
	if err != nil {
		return opened{}, err
	}
	f, err := s.blobs.open(vm, id)
	if err != nil {
		return opened{}, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != size || record.size != size) {
		err = damaged("a file has %d bytes instead of %d", info.Size(), size)
	}
	if err != nil {
		return opened{}, errors.Join(err, f.Close())
	}
	return opened{ReaderAt: f, f: f, id: id, changed: info.ModTime().UnixNano(), crcs: record.crcs, verified: -1}, nil
}

// verify compares a chunk with its checksum, unless it was the last to be compared.
func (o *opened) verify(chunk int, size int64) error {
	if o.verified == chunk || len(o.crcs) == 0 {
		return nil
	}
	buf := buffers.Get().(*[copyBuffer]byte) // the pool has no others
	defer buffers.Put(buf)
	from := int64(chunk) * chunkBytes
	var crc uint64
	for end := min(from+chunkBytes, size); from < end; {
		n, err := o.ReadAt(buf[:min(copyBuffer, end-from)], from)
		if err != nil {
			return cut(err)
		}
		crc = crc64nvme.Update(crc, buf[:n])
		from += int64(n)
	}
	if crc != o.crcs[chunk] {
		return damaged("a file has changed at byte %d or after it", int64(chunk)*chunkBytes)
	}
	o.verified = chunk
	return nil
}
