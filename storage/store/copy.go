package store

import (
	"context"
	"errors"
	"io"

	"lodge/gateway"
)

// Copy makes an object with the body of another one. Within a VM it copies no bytes of large bodies: both
// share the files. Errors: those of Head for the source, those of Put, ErrPrecondition for IfSource, and
// ErrSealedParts for a multipart source of another VM that is encrypted.
func (s *Store) Copy(ctx context.Context, from Key, id string, to Key, c CopyOptions) (o Object, err error) {
	if err := check(to); err != nil {
		return Object{}, err
	}
	source, err := s.Get(from, id)
	if err != nil {
		return Object{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if err := c.IfSource.holds(&source.Object); err != nil {
		return Object{}, err
	}
	v := &version{Object: Object{Key: to, Size: source.Size, ETag: source.ETag, Checksum: source.Checksum, Parts: source.Parts}, extra: source.stored - source.Size}
	v.Meta = Meta{Header: source.Header, Tags: source.Tags, Sealed: source.Sealed}
	if c.Meta != nil {
		if v.Meta, err = c.Meta(source.Object); err != nil {
			return Object{}, err
		}
	}
	if c.Checksum != nil {
		v.Checksum = c.Checksum(source.Object)
	}
	return s.copyBody(ctx, source, v, c.If)
}

func (s *Store) copyBody(ctx context.Context, source *Body, v *version, c Condition) (Object, error) {
	p, err := s.payloadOf(ctx, source, v.Key)
	if err != nil {
		return Object{}, err
	}
	if v.content = p.content; p.kind != kindList {
		v.Parts = 0
	}
	err = s.commit(target{vm: v.Key.VM, bucket: v.Key.Bucket, names: []string{v.Key.Name}, create: true}, func(x *tx, b *Bucket) error {
		if err := x.test(b, v.Key, c); err != nil {
			return err
		}
		if err := x.own(p); err != nil {
			return err
		}
		return x.created(b, v, CreatedByCopy)
	})
	s.drop(p, err == nil)
	return v.Object, err
}

// payloadOf returns the body of an open object for a record of key: its own files if they can be shared,
// else a copy.
func (s *Store) payloadOf(ctx context.Context, source *Body, key Key) (*payload, error) {
	w := Write{
		Body: source, Size: source.stored, ETag: func() string { return source.ETag }, Plain: func() int64 { return source.Size },
	}
	if !source.pinned || source.Key.VM != key.VM {
		if source.content.kind == kindList && len(source.Sealed) > 0 {
			return nil, ErrSealedParts // the copy has no list of them
		}
		return s.receive(ctx, key.VM, key.Bucket, w)
	}
	p := &payload{content: source.content, size: source.stored, plain: source.Size, etag: source.ETag, shared: true}
	return p, s.reserve(p, key.VM, key.Bucket, 0, source.Size)
}

// reserve makes room for a payload of size bytes, of which so many are new on the disk.
func (s *Store) reserve(p *payload, vm gateway.ID, bucket string, written, size int64) error {
	if err := s.hasRoom(written); err != nil {
		return err
	}
	a, err := s.account(vm)
	if err != nil {
		return err
	}
	p.room = &reservation{a: a, bucket: bucket, limits: s.cfg.Limits(vm, bucket)}
	return p.room.add(size + recordBytes)
}

// CopyPart is PutPart with length bytes of another object from offset on; length -1 is all the rest. It
// shares the source's file where it is all of one, and copies bytes else. A range that the source does not
// have is ErrRange, and any of an encrypted source.
func (s *Store) CopyPart(ctx context.Context, key Key, upload string, number int, from Key, id string, offset, length int64, c CopyPartOptions) (made Part, err error) {
	source, err := s.Get(from, id)
	if err != nil {
		return Part{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if err := c.IfSource.holds(&source.Object); err != nil {
		return Part{}, err
	}
	if length < 0 {
		length = source.Size - offset
	}
	if offset < 0 || length < 0 || offset > source.Size-length || source.stored != source.Size {
		return Part{}, ErrRange
	}
	if length == source.Size && c.Reader == nil && source.content.kind == kindFile && from.VM == key.VM {
		p, err := s.payloadOf(ctx, source, key)
		if err != nil {
			return Part{}, err
		}
		return s.putPart(key, upload, number, p)
	}
	if _, err := source.Seek(offset, io.SeekStart); err != nil {
		return Part{}, err
	}
	w := Write{Body: io.LimitReader(source, length), Size: length, Checksum: c.Checksum}
	if c.Reader != nil {
		w.Body, w.Size = c.Reader(w.Body), -1
	}
	return s.PutPart(ctx, key, upload, number, w)
}
