package store

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// NewUpload begins a multipart upload. The bucket is made if there is none. A VM can have 10,000 in progress,
// further ones are ErrTooManyUploads.
func (s *Store) NewUpload(key Key, o UploadOptions) (Upload, error) {
	if err := check(key); err != nil {
		return Upload{}, err
	}
	if err := s.hasRoom(0); err != nil {
		return Upload{}, err
	}
	if a, err := s.account(key.VM); err != nil || a.uploads() >= s.maxUploads { // those that begin now may pass it
		return Upload{}, cmp.Or(err, ErrTooManyUploads)
	}
	u := Upload{Key: key, Started: s.cfg.Now().UTC(), UploadOptions: o}
	err := s.commit(target{vm: key.VM, bucket: key.Bucket, create: true}, func(x *tx, b *Bucket) (err error) {
		if u.number, err = s.ids.take(); err != nil {
			return err
		}
		u.ID = uploadID(u.number)
		record := u.encode()
		if len(record) > maxMeta {
			return ErrTooLarge
		}
		x.count(b.Name, u.usage())
		return x.b.Set(seqKey(key.VM, kindUpload, b.number, key.Name, u.number), record, nil)
	})
	return u, err
}

// uploadOf reads an upload.
func uploadOf(r pebble.Reader, b *Bucket, key Key, id string) (Upload, error) {
	number, ok := parseUploadID(id)
	if !ok {
		return Upload{}, ErrNoUpload
	}
	v, err := value(r, seqKey(key.VM, kindUpload, b.number, key.Name, number))
	if missing(err) {
		return Upload{}, ErrNoUpload
	}
	if err != nil {
		return Upload{}, err
	}
	return decodeUpload(key, number, v)
}

// Upload returns an upload in progress. Errors: ErrNoBucket, ErrNoUpload.
func (s *Store) Upload(key Key, id string) (Upload, error) {
	if err := check(key); err != nil {
		return Upload{}, err
	}
	b, err := bucketOf(s.index, key.VM, key.Bucket)
	if err != nil {
		return Upload{}, err
	}
	return uploadOf(s.index, b, key, id)
}

// PutPart stores a part, in place of one with the same number. Write's Meta and If are not used. Errors:
// ErrNoBucket, ErrNoUpload, ErrPartNumber, and those of Put.
func (s *Store) PutPart(ctx context.Context, key Key, upload string, number int, w Write) (Part, error) {
	if number < 1 || number > maxParts {
		return Part{}, ErrPartNumber
	}
	if _, err := s.Upload(key, upload); err != nil { // before the body is read
		return Part{}, err
	}
	p, err := s.receive(ctx, key.VM, key.Bucket, w)
	if err != nil {
		return Part{}, err
	}
	return s.putPart(key, upload, number, p)
}

func (s *Store) putPart(key Key, upload string, number int, p *payload) (Part, error) {
	made := part{content: p.content, extra: p.extra()}
	made.Part = Part{Number: number, Size: p.plain, ETag: p.etag, Modified: s.cfg.Now().UTC(), Checksum: p.sum}
	err := ErrPartNumber
	if number >= 1 && number <= maxParts {
		to := target{vm: key.VM, bucket: key.Bucket, upload: upload, part: number}
		err = s.commit(to, func(x *tx, b *Bucket) error { return x.putPart(b, key, upload, p, &made) })
	}
	s.drop(p, err == nil)
	if err != nil {
		return Part{}, err
	}
	return made.Part, nil
}

func (x *tx) putPart(b *Bucket, key Key, upload string, p *payload, made *part) error {
	u, err := uploadOf(x.b, b, key, upload)
	if err != nil {
		return err
	}
	at := partKey(key.VM, u.number, made.Number)
	old, err := x.present(at)
	if err != nil {
		return err
	}
	if old != nil {
		replaced, err := decodePart(old)
		if err != nil {
			return err
		}
		x.release(replaced.content, replaced.Size+replaced.extra)
		x.count(b.Name, replaced.usage().negative())
	}
	if err := x.own(p); err != nil {
		return err
	}
	x.hold(made.content)
	x.count(b.Name, made.usage())
	return x.b.Set(at, made.encode(), nil)
}

// uploadParts reads all parts of an upload.
func uploadParts(r pebble.Reader, u Upload) (parts []part, err error) {
	err = each(r, numKey(u.Key.VM, kindPart, u.number), func(_, v []byte) error {
		p, err := decodePart(v)
		parts = append(parts, p)
		return err
	})
	return parts, err
}

// Parts returns the parts of an upload with numbers above after, at most most of them. Errors: ErrNoBucket,
// ErrNoUpload.
func (s *Store) Parts(key Key, upload string, after, most int) (PartPage, error) {
	u, err := s.Upload(key, upload)
	if err != nil {
		return PartPage{}, err
	}
	parts, err := uploadParts(s.index, u)
	if err != nil {
		return PartPage{}, err
	}
	return pageOf(parts, after, most), nil
}

// PartsOf returns the parts of a multipart object with numbers above after, at most most of them; none of
// any other object. Errors: those of Head.
func (s *Store) PartsOf(key Key, id string, after, most int) (PartPage, error) {
	s.garbage.finding.RLock()
	defer s.garbage.finding.RUnlock()
	v, err := s.find(key, id)
	if err != nil || v.content.kind != kindList {
		return PartPage{}, err
	}
	parts, err := s.parts(key.VM, v.content)
	if err != nil {
		return PartPage{}, err
	}
	return pageOf(parts, after, most), nil
}

func pageOf(parts []part, after, most int) (page PartPage) {
	for _, p := range parts {
		if p.Number <= after {
			continue
		}
		if len(page.Parts) >= most {
			page.More = true
			break
		}
		page.Parts, page.Next = append(page.Parts, p.Part), p.Number
	}
	return page
}

// Abort removes an upload and its parts. Errors: ErrNoBucket, ErrNoUpload.
func (s *Store) Abort(key Key, upload string) error {
	if err := check(key); err != nil {
		return err
	}
	return s.commit(target{vm: key.VM, bucket: key.Bucket, upload: upload}, func(x *tx, b *Bucket) error {
		return x.abort(b, key, upload)
	})
}

func (x *tx) abort(b *Bucket, key Key, upload string) error {
	u, err := uploadOf(x.b, b, key, upload)
	if err != nil {
		return err
	}
	parts, err := uploadParts(x.b, u)
	if err != nil {
		return err
	}
	for _, p := range parts {
		x.release(p.content, p.Size+p.extra)
	}
	return x.endUpload(b, u, parts)
}

// endUpload removes the records of an upload, but not what its parts hold.
func (x *tx) endUpload(b *Bucket, u Upload, parts []part) error {
	all := u.usage()
	for _, p := range parts {
		all.add(p.usage())
	}
	x.count(b.Name, all.negative())
	records := numKey(u.Key.VM, kindPart, u.number)
	return errors.Join(x.b.DeleteRange(records, after(records), nil),
		x.b.Delete(seqKey(u.Key.VM, kindUpload, b.number, u.Key.Name, u.number), nil))
}

// Uploads returns a page of a bucket's uploads: by key, and those of a key in the order of their beginning. Of
// their Meta they have what List has.
// ErrNoBucket.
func (s *Store) Uploads(ctx context.Context, q Query) (page UploadPage, err error) {
	at, err := s.moment(q.VM)
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	b, err := bucketOf(at, q.VM, q.Bucket)
	if err != nil {
		return page, err
	}
	w, err := walkOver(ctx, at, b, q, kindUpload)
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, w.it.Close()) }()
	ok := false
	if number, known := parseUploadID(strings.ToLower(q.AfterVersion)); q.After != "" && known {
		ok = w.it.SeekGE(append(seqKey(q.VM, kindUpload, b.number, q.After, number), 0))
	} else {
		w.q.AfterVersion = ""
		ok = w.start()
	}
	for n := 0; ok; n++ {
		if page.More = n == w.q.Max; page.More {
			return page, nil
		}
		if ok, err = page.add(w, b); err != nil {
			return page, err
		}
	}
	return page, w.it.Error()
}

// eachUpload calls f for the record of each upload of a VM that is in progress as it begins, by bucket and key.
// f may end uploads.
func (s *Store) eachUpload(vm gateway.ID, f func(b *Bucket, key Key, number uint64, record []byte) error) error {
	prefix := vmKey(vm, kindBucket, 0)
	return each(s.index, prefix, func(key, v []byte) error {
		b, err := decodeBucket(vm, string(key[len(prefix):]), v)
		if err != nil {
			return err
		}
		return each(s.index, nameKey(vm, kindUpload, b.number, ""), func(key, record []byte) error {
			name, number, _ := seqIn(key)
			return f(&b, Key{vm, b.Name, name}, number, record)
		})
	})
}

// add appends the upload at the walk's position, or the prefix that stands for it, and goes on.
func (page *UploadPage) add(w *walk, b *Bucket) (bool, error) {
	name, number, ok := seqIn(w.it.Key())
	if !ok {
		return false, damaged("the key of an upload cannot be read")
	}
	if folded, yes := w.fold(name); yes {
		page.Prefixes, page.Next, page.NextUpload = append(page.Prefixes, folded), folded, ""
		return w.skip(folded), nil
	}
	u, err := decodeUploadWith(Key{b.VM, b.Name, name}, number, w.it.Value(), w.listed)
	if err != nil {
		return false, err
	}
	page.Uploads, page.Next, page.NextUpload = append(page.Uploads, u), name, u.ID
	return w.it.Next(), nil
}
