package store

import (
	"bytes"
	"context"
	"crypto/md5" // S3's ETag
	"encoding/hex"
	"errors"
	"fmt"
)

// Complete makes an object of an upload's parts: those listed, which copies no bytes. Other parts are
// removed. Completed again, it returns the same object as long as that is the latest one. Errors:
// ErrNoBucket, ErrNoUpload, ErrPart, ErrPartOrder, ErrPartSmall, ErrSize, ErrPrecondition, ErrLocked.
func (s *Store) Complete(ctx context.Context, key Key, upload string, listed []CompletedPart, c Completion) (Object, error) {
	if err := check(key); err != nil {
		return Object{}, err
	}
	for i := range listed {
		if i > 0 && listed[i-1].Number >= listed[i].Number {
			return Object{}, ErrPartOrder
		}
	}
	if err := ctx.Err(); err != nil {
		return Object{}, err
	}
	var made Object
	err := s.commit(target{vm: key.VM, bucket: key.Bucket, names: []string{key.Name}, upload: upload}, func(x *tx, b *Bucket) error {
		u, err := uploadOf(x.b, b, key, upload)
		if errors.Is(err, ErrNoUpload) {
			made, err = x.completed(b, key, upload)
			return err
		}
		if err != nil {
			return err
		}
		if err := x.test(b, key, c.If); err != nil {
			return err
		}
		v, err := x.complete(b, u, listed, c)
		if err == nil {
			made = v.Object
		}
		return err
	})
	return made, err
}

// completed returns the object that an upload has become.
func (x *tx) completed(b *Bucket, key Key, upload string) (Object, error) {
	cur, err := x.current(b, key.Name)
	if err != nil {
		return Object{}, err
	}
	if number, ok := parseUploadID(upload); cur == nil || !ok || cur.upload != number {
		return Object{}, ErrNoUpload
	}
	cur.Latest = true
	return cur.Object, nil
}

func (x *tx) complete(b *Bucket, u Upload, listed []CompletedPart, c Completion) (*version, error) {
	all, err := uploadParts(x.b, u)
	if err != nil {
		return nil, err
	}
	parts, err := x.choose(all, listed)
	if err != nil {
		return nil, err
	}
	v := &version{Object: Object{Key: u.Key, Parts: len(parts), Meta: u.Meta}, upload: u.number}
	public := make([]Part, len(parts))
	digest := md5.New() // S3's ETag
	for i, p := range parts {
		v.Size += p.Size
		v.extra += p.extra
		public[i] = p.Part
		digest.Write(etagBytes(p.ETag))
	}
	v.ETag = fmt.Sprintf("%s-%d", hex.EncodeToString(digest.Sum(nil)), len(parts))
	if c.Size != nil && *c.Size != v.Size {
		return nil, ErrSize
	}
	if c.Checksum != nil {
		if v.Checksum, err = c.Checksum(public); err != nil {
			return nil, err
		}
	}
	if v.content, err = x.list(parts); err != nil {
		return nil, err
	}
	if err := x.endUpload(b, u, all); err != nil {
		return nil, err
	}
	return v, x.created(b, v, CreatedFromParts)
}

// etagBytes returns what an ETag adds to that of the whole: the MD5 that it is of.
func etagBytes(etag string) []byte {
	if b, err := hex.DecodeString(etag); err == nil {
		return b
	}
	return []byte(etag)
}

// choose returns the parts that are listed, and releases the others.
func (x *tx) choose(all []part, listed []CompletedPart) ([]part, error) {
	chosen := make([]part, 0, len(listed))
	for _, p := range all {
		i := len(chosen)
		if i == len(listed) || listed[i].Number != p.Number {
			x.release(p.content, p.Size+p.extra)
			continue
		}
		if listed[i].ETag != p.ETag || listed[i].Checksum != nil && !bytes.Equal(listed[i].Checksum, p.Checksum.Value) {
			return nil, fmt.Errorf("%w: part %d", ErrPart, p.Number)
		}
		if i < len(listed)-1 && p.Size < x.s.cfg.MinPart {
			return nil, fmt.Errorf("%w: part %d", ErrPartSmall, p.Number)
		}
		chosen = append(chosen, p)
	}
	if len(chosen) == 0 || len(chosen) < len(listed) {
		return nil, ErrPart
	}
	return chosen, nil
}

// list writes the list of a multipart object's parts. It takes over what the parts' records held.
func (x *tx) list(parts []part) (content, error) {
	id, err := x.s.ids.take()
	if err != nil {
		return content{}, err
	}
	c := content{kind: kindList, id: id}
	x.fresh = append(x.fresh, c)
	return c, x.b.Set(numKey(x.a.vm, kindList, id), encodeList(parts), nil)
}
