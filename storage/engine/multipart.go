package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	vgw "github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"lodge/gateway"
)

// uploadAttribute is the attribute in which versitygw keeps the multipart upload of an object.
const uploadAttribute = "mp-metadata"

// inUpload is inObject for an upload. Its ID must have the form of an ID, since versitygw makes a
// path of it.
func (b *backend) inUpload(ctx context.Context, bucket, key, upload *string) (place, error) {
	if _, err := gateway.ParseID(deref(upload)); err != nil {
		return place{}, s3err.GetNoSuchUploadErr(deref(upload))
	}
	return b.inObject(ctx, bucket, key)
}

// uploadsPath holds the uploads of one key.
func (p place) uploadsPath() string {
	sum := sha256.Sum256([]byte(p.key))
	return filepath.Join(p.path, posix.MetaTmpMultipartDir, hex.EncodeToString(sum[:]))
}

// CreateMultipartUpload implements backend.Backend.
func (b *backend) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	p, err := b.inObject(ctx, in.Bucket, in.Key)
	if err != nil {
		return s3response.InitiateMultipartUploadResult{}, err
	}
	in.Bucket = &p.path
	res, err := b.posix.CreateMultipartUpload(ctx, in)
	if err == nil {
		_, err = b.commit(p)
	}
	if err == nil {
		err = b.sync(filepath.Join(p.uploadsPath(), res.UploadId))
	}
	res.Bucket = p.bucket
	return res, b.fail("start upload", p, err)
}

// UploadPart implements backend.Backend.
func (b *backend) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	p, err := b.inUpload(ctx, in.Bucket, in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	inside := *in
	inside.Bucket = &p.path
	out, err := b.posix.UploadPartWithPostFunc(ctx, &inside, func(f *os.File) error {
		// versitygw takes a body that is cut for a short one, and the file has its full size beforehand.
		if written, err := f.Seek(0, io.SeekCurrent); err != nil || written != deref(in.ContentLength) {
			return errors.Join(s3err.GetAPIError(s3err.ErrIncompleteBody), err)
		}
		return f.Sync()
	})
	if err == nil {
		err = syncUp(filepath.Join(p.uploadsPath(), *in.UploadId), p.uploadsPath()) // the directories above were synced when the upload began
	}
	return out, b.fail("put part", p, err)
}

// CompleteMultipartUpload implements backend.Backend. versitygw answers 200 for an upload that it
// no longer has, or that another request is completing. Here the second request waits for the
// first, and only an object of this very upload counts.
func (b *backend) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	p, err := b.inUpload(ctx, in.Bucket, in.Key, in.UploadId)
	if err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	lock := b.uploads.of(*in.UploadId)
	lock.Lock()
	defer lock.Unlock()
	if _, err := os.Stat(filepath.Join(p.uploadsPath(), *in.UploadId)); err != nil {
		res, err := b.completed(p, *in.UploadId)
		return res, "", err
	}
	if in.MultipartUpload == nil || len(in.MultipartUpload.Parts) == 0 {
		return s3response.CompleteMultipartUploadResult{}, "", s3err.GetAPIError(s3err.ErrMalformedXML)
	}
	join := joiner{publication: publication{backend: b, place: p}, parts: len(in.MultipartUpload.Parts)}
	defer join.end()
	inside := *in
	inside.Bucket = &p.path
	res, version, err := b.posix.CompleteMultipartUploadWithCopy(ctx, &inside, join.copy)
	join.end()
	if join.err != nil {
		err = join.err
	}
	if err == nil {
		err = b.sync(p.object())
	}
	res.Bucket = &p.bucket
	return res, version, b.fail("complete upload", p, err)
}

// completed answers a repeated request to complete: with the object, if it came from that upload.
func (b *backend) completed(p place, upload string) (s3response.CompleteMultipartUploadResult, error) {
	defer b.reading(p)()
	attributes := meta.XattrMeta{}
	raw, err := attributes.RetrieveAttribute(nil, p.path, p.key, uploadAttribute)
	if err != nil {
		return s3response.CompleteMultipartUploadResult{}, s3err.GetNoSuchUploadErr(upload)
	}
	from, err := vgw.UnmarshalMpUploadMetadata(raw, false)
	if err != nil || from.UploadID != upload {
		return s3response.CompleteMultipartUploadResult{}, s3err.GetNoSuchUploadErr(upload)
	}
	etag, err := attributes.RetrieveAttribute(nil, p.path, p.key, "etag")
	if err != nil {
		return s3response.CompleteMultipartUploadResult{}, b.fail("complete upload", p, err)
	}
	tag := string(etag)
	return s3response.CompleteMultipartUploadResult{Bucket: &p.bucket, Key: &p.key, ETag: &tag}, nil
}

// joiner joins the parts of an upload. After the last one it syncs the file and takes the locks.
type joiner struct {
	publication
	parts int // still to come
	err   error
}

// copy is a posix.CustomCopyFunc. After an error, versitygw would append the part once more:
// closing the file makes that fail, and the upload with it.
func (j *joiner) copy(from, to *os.File) (repeatable bool, err error) {
	if _, err = io.Copy(to, from); err == nil {
		if j.parts--; j.parts == 0 {
			err = j.begin(to)
		}
	}
	if err != nil {
		j.err = fmt.Errorf("join parts: %w", err)
		_ = to.Close() // see above; the file is removed
	}
	return true, err
}

// AbortMultipartUpload implements backend.Backend.
func (b *backend) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	p, err := b.inUpload(ctx, in.Bucket, in.Key, in.UploadId)
	if err != nil {
		return err
	}
	lock := b.uploads.of(*in.UploadId)
	lock.Lock()
	defer lock.Unlock()
	inside := *in
	inside.Bucket = &p.path
	if err = b.posix.AbortMultipartUpload(ctx, &inside); err == nil {
		err = syncUp(p.uploadsPath(), p.path)
	}
	return b.fail("abort upload", p, err)
}

// ListParts implements backend.Backend.
func (b *backend) ListParts(ctx context.Context, in *s3.ListPartsInput) (s3response.ListPartsResult, error) {
	p, err := b.inUpload(ctx, in.Bucket, in.Key, in.UploadId)
	if err != nil {
		return s3response.ListPartsResult{}, err
	}
	inside := *in
	inside.Bucket = &p.path
	res, err := b.posix.ListParts(ctx, &inside)
	res.Bucket = p.bucket
	return res, b.fail("list parts", p, err)
}

// ListMultipartUploads implements backend.Backend.
func (b *backend) ListMultipartUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (s3response.ListMultipartUploadsResult, error) {
	p, err := b.existing(ctx, *in.Bucket)
	if err != nil {
		return s3response.ListMultipartUploadsResult{}, err
	}
	inside := *in
	inside.Bucket = &p.path
	res, err := b.posix.ListMultipartUploads(ctx, &inside)
	res.Bucket = p.bucket
	return res, b.fail("list uploads", p, err)
}
