package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	vgw "github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// tagsAttribute is where versitygw keeps an object's tags, as JSON.
const tagsAttribute = "X-Amz-Tagging"

// PutObject implements backend.Backend. The object appears complete, with its metadata and tags, or
// not at all: data is synced before the file gets its name, and the name before the answer.
func (b *backend) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	p, err := b.inObject(ctx, in.Bucket, in.Key)
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	tags, err := vgw.ParseObjectTags(deref(in.Tagging))
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	if strings.HasSuffix(p.key, "/") {
		err = proveEmpty(in)
	} else {
		in.Tagging = nil // set on the file before it gets its name; versitygw would do it after
	}
	if err != nil {
		return s3response.PutObjectOutput{}, b.fail("put object", p, err)
	}
	pub := publication{backend: b, place: p, tags: tags}
	defer pub.end()
	in.Bucket = &p.path
	out, err := b.posix.PutObjectWithPostFunc(ctx, in, func(f *os.File) error {
		if in.ContentLength != nil {
			if fi, err := f.Stat(); err != nil || fi.Size() != *in.ContentLength {
				return errors.Join(s3err.GetAPIError(s3err.ErrIncompleteBody), err)
			}
		}
		return pub.begin(f)
	})
	if err == nil {
		_, err = b.commit(p)
	}
	pub.end()
	if err != nil {
		p.removeParents()
	} else {
		err = b.sync(p.object())
	}
	return out, b.fail("put object", p, err)
}

// proveEmpty checks the body of a key with a final slash, which is a directory: versitygw does not
// read the body, and compares its checksum when the directory has been changed.
func proveEmpty(in s3response.PutObjectInput) error {
	if deref(in.ContentLength) > 0 {
		return s3err.GetAPIError(s3err.ErrDirectoryObjectContainsData)
	}
	var body io.Reader = strings.NewReader("")
	if in.Body != nil {
		body = in.Body
	}
	for kind, sum := range map[utils.HashType]*string{
		utils.HashTypeCRC32: in.ChecksumCRC32, utils.HashTypeCRC32C: in.ChecksumCRC32C, utils.HashTypeCRC64NVME: in.ChecksumCRC64NVME,
		utils.HashTypeSha1: in.ChecksumSHA1, utils.HashTypeSha256: in.ChecksumSHA256, utils.HashTypeSha512: in.ChecksumSHA512,
		utils.HashTypeMd5: in.ChecksumMD5, utils.HashTypeXXHASH64: in.ChecksumXXHASH64, utils.HashTypeXXHASH3: in.ChecksumXXHASH3,
		utils.HashTypeXXHASH128: in.ChecksumXXHASH128,
	} {
		if sum == nil {
			continue
		}
		var err error
		if body, err = utils.NewHashReader(body, *sum, kind); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, body)
	return err
}

// removeParents removes the directories that a failed write has made for its key: as a directory, a
// key cannot be an object. Those that are objects themselves have an ETag, and other writers make
// theirs once more.
func (p place) removeParents() {
	key := p.key
	if !strings.HasSuffix(key, "/") {
		key = path.Dir(key)
	}
	for key = path.Clean(key); key != "."; key = path.Dir(key) {
		if _, err := (meta.XattrMeta{}).RetrieveAttribute(nil, p.path, key, "etag"); err == nil {
			return
		}
		if os.Remove(filepath.Join(p.path, key)) != nil {
			return // it has other objects
		}
	}
}

// publication holds the locks while a file becomes visible as an object.
type publication struct {
	backend *backend
	place   place
	tags    map[string]string
	locked  bool
}

// begin syncs the file and takes the locks; end releases them.
func (p *publication) begin(f *os.File) error {
	if p.tags != nil {
		value, err := json.Marshal(p.tags)
		if err != nil {
			return fmt.Errorf("marshal tags: %w", err)
		}
		if err := (meta.XattrMeta{}).StoreAttribute(f, "", "", tagsAttribute, value); err != nil {
			return fmt.Errorf("set tags: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync object: %w", err)
	}
	p.backend.buckets.of(p.place.path).RLock()
	p.backend.keys.of(p.place.object()).Lock()
	p.locked = true
	if _, err := os.Lstat(f.Name()); err != nil {
		return s3err.GetBucketErr(s3err.ErrNoSuchBucket, p.place.bucket) // the bucket was deleted in between
	}
	return nil
}

func (p *publication) end() {
	if p.locked {
		p.backend.keys.of(p.place.object()).Unlock()
		p.backend.buckets.of(p.place.path).RUnlock()
		p.locked = false
	}
}

// reading blocks writers of the key while an object is opened, so that its ETag matches its bytes.
func (b *backend) reading(p place) (done func()) {
	lock := b.keys.of(p.object())
	lock.RLock()
	return lock.RUnlock
}

// GetObject implements backend.Backend.
func (b *backend) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	p, err := b.inObject(ctx, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	defer b.reading(p)()
	inside := *in
	inside.Bucket = &p.path
	out, err := b.posix.GetObject(ctx, &inside)
	return out, b.fail("get object", p, err)
}

// HeadObject implements backend.Backend.
func (b *backend) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	p, err := b.inObject(ctx, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	defer b.reading(p)()
	inside := *in
	inside.Bucket = &p.path
	out, err := b.posix.HeadObject(ctx, &inside)
	return out, b.fail("head object", p, err)
}

// GetObjectAttributes implements backend.Backend.
func (b *backend) GetObjectAttributes(ctx context.Context, in *s3.GetObjectAttributesInput) (s3response.GetObjectAttributesResponse, error) {
	p, err := b.inObject(ctx, in.Bucket, in.Key)
	if err != nil {
		return s3response.GetObjectAttributesResponse{}, err
	}
	defer b.reading(p)()
	inside := *in
	inside.Bucket = &p.path
	out, err := b.posix.GetObjectAttributes(ctx, &inside)
	return out, b.fail("get object attributes", p, err)
}

// GetObjectAcl implements backend.Backend: an object has one owner, its VM.
func (b *backend) GetObjectAcl(ctx context.Context, in *s3.GetObjectAclInput) (*s3.GetObjectAclOutput, error) {
	if _, err := b.HeadObject(ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key}); err != nil {
		return nil, err
	}
	id, err := b.vm(ctx)
	if err != nil {
		return nil, err
	}
	owner := id.String()
	return &s3.GetObjectAclOutput{Owner: &types.Owner{ID: &owner}}, nil
}

// DeleteObject implements backend.Backend.
func (b *backend) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	p, err := b.inObject(ctx, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	inside := *in
	inside.Bucket = &p.path
	lock := b.keys.of(p.object())
	lock.Lock()
	out, err := b.posix.DeleteObject(ctx, &inside)
	lock.Unlock()
	if err == nil {
		err = b.sync(filepath.Dir(p.object()))
	}
	return out, b.fail("delete object", p, err)
}

// DeleteObjects implements backend.Backend.
func (b *backend) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	if _, err := b.existing(ctx, *in.Bucket); err != nil {
		return s3response.DeleteResult{}, err
	}
	if len(in.Delete.Objects) > maxDeletes {
		return s3response.DeleteResult{}, s3err.GetAPIError(s3err.ErrMalformedXML)
	}
	var res s3response.DeleteResult
	for _, o := range in.Delete.Objects {
		err := CheckKey(deref(o.Key))
		if err == nil {
			_, err = b.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: in.Bucket, Key: o.Key, VersionId: o.VersionId})
		}
		if err != nil {
			res.Error = append(res.Error, s3err.ObjectDeleteError(o.Key, o.VersionId, err))
			continue
		}
		res.Deleted = append(res.Deleted, types.DeletedObject{Key: o.Key, VersionId: o.VersionId})
	}
	return res, nil
}

// GetObjectTagging implements backend.Backend.
func (b *backend) GetObjectTagging(ctx context.Context, bucket, key, version string) (map[string]string, error) {
	p, err := b.inObject(ctx, &bucket, &key)
	if err != nil {
		return nil, err
	}
	tags, err := b.posix.GetObjectTagging(ctx, p.path, key, version)
	return tags, b.fail("get object tags", p, err)
}

// PutObjectTagging implements backend.Backend.
func (b *backend) PutObjectTagging(ctx context.Context, bucket, key, version string, tags map[string]string) error {
	p, err := b.inObject(ctx, &bucket, &key)
	if err != nil {
		return err
	}
	if err = b.posix.PutObjectTagging(ctx, p.path, key, version, tags); err == nil {
		err = b.sync(p.object())
	}
	return b.fail("set object tags", p, err)
}

// DeleteObjectTagging implements backend.Backend.
func (b *backend) DeleteObjectTagging(ctx context.Context, bucket, key, version string) error {
	return b.PutObjectTagging(ctx, bucket, key, version, nil)
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
