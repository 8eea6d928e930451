package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// CreateBucket implements backend.Backend.
func (b *backend) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, _ []byte) error {
	p, err := b.inBucket(ctx, *in.Bucket)
	if err != nil {
		return err
	}
	if in.ObjectLockEnabledForBucket != nil && *in.ObjectLockEnabledForBucket {
		return notImplemented("Object locks are not implemented.")
	}
	made, err := b.makeBucket(p)
	if err == nil && !made {
		return s3err.GetBucketErr(s3err.ErrBucketAlreadyOwnedByYou, p.bucket)
	}
	return b.fail("make bucket", p, err)
}

// DeleteBucket implements backend.Backend. The bucket is renamed aside first, so that a crash
// leaves it complete or removed.
func (b *backend) DeleteBucket(ctx context.Context, bucket string) error {
	id, err := b.vm(ctx)
	if err != nil {
		return err
	}
	lock := b.buckets.of(b.bucketPath(id, bucket))
	lock.Lock()
	defer lock.Unlock()
	p, err := b.existing(ctx, bucket)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return b.fail("delete bucket", p, err)
	}
	for _, e := range entries {
		if e.Name() != posix.MetaTmpDir {
			return s3err.GetBucketErr(s3err.ErrBucketNotEmpty, bucket)
		}
	}
	return b.fail("delete bucket", p, b.discard(p.path))
}

// ListBuckets implements backend.Backend.
func (b *backend) ListBuckets(ctx context.Context, in s3response.ListBucketsInput) (s3response.ListAllMyBucketsResult, error) {
	id, err := b.vm(ctx)
	if err != nil {
		return s3response.ListAllMyBucketsResult{}, err
	}
	entries, err := os.ReadDir(b.vmPath(id)) // ordered by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s3response.ListAllMyBucketsResult{}, b.fail("list buckets", place{id: id}, err)
	}
	res := s3response.ListAllMyBucketsResult{Owner: s3response.CanonicalUser{ID: id.String()}, Prefix: in.Prefix}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || isStaged(info) || !strings.HasPrefix(e.Name(), in.Prefix) || e.Name() <= in.ContinuationToken {
			continue // an error: it was deleted just now
		}
		if len(res.Buckets.Bucket) == int(in.MaxBuckets) {
			res.ContinuationToken = res.Buckets.Bucket[len(res.Buckets.Bucket)-1].Name
			break
		}
		res.Buckets.Bucket = append(res.Buckets.Bucket, s3response.ListAllMyBucketsEntry{Name: e.Name(), CreationDate: info.ModTime()})
	}
	return res, nil
}

// HeadBucket implements backend.Backend.
func (b *backend) HeadBucket(ctx context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
	if _, err := b.existing(ctx, *in.Bucket); err != nil {
		return nil, err
	}
	return &s3.HeadBucketOutput{}, nil
}

// GetBucketAcl implements backend.Backend: a bucket has one owner, its VM. versitygw asks for it
// before each request about a bucket, so a staged one has it, too.
func (b *backend) GetBucketAcl(ctx context.Context, in *s3.GetBucketAclInput) ([]byte, error) {
	p, err := b.inBucket(ctx, *in.Bucket)
	if err != nil {
		return nil, err
	}
	if _, err := b.lstat(p); err != nil {
		return nil, err
	}
	return json.Marshal(auth.ACL{Owner: p.id.String(), Grantees: []auth.Grantee{
		{Permission: auth.PermissionFullControl, Access: p.id.String(), Type: types.TypeCanonicalUser},
	}})
}

// GetBucketPolicy implements backend.Backend: there are none.
func (b *backend) GetBucketPolicy(_ context.Context, bucket string) ([]byte, error) {
	return nil, s3err.GetBucketErr(s3err.ErrNoSuchBucketPolicy, bucket)
}

// GetBucketCors implements backend.Backend: there are none.
func (b *backend) GetBucketCors(_ context.Context, bucket string) ([]byte, error) {
	return nil, s3err.GetBucketErr(s3err.ErrNoSuchCORSConfiguration, bucket)
}

// GetObjectLockConfiguration implements backend.Backend: there are none.
func (b *backend) GetObjectLockConfiguration(context.Context, string) ([]byte, error) {
	return nil, s3err.GetAPIError(s3err.ErrObjectLockConfigurationNotFound)
}

// GetBucketVersioning implements backend.Backend: no bucket was ever versioned.
func (b *backend) GetBucketVersioning(ctx context.Context, bucket string) (s3response.GetBucketVersioningOutput, error) {
	_, err := b.existing(ctx, bucket)
	return s3response.GetBucketVersioningOutput{}, err
}

// GetBucketTagging implements backend.Backend.
func (b *backend) GetBucketTagging(ctx context.Context, bucket string) (map[string]string, error) {
	p, err := b.existing(ctx, bucket)
	if err != nil {
		return nil, err
	}
	tags, err := b.posix.GetBucketTagging(ctx, p.path)
	return tags, b.fail("get bucket tags", p, err)
}

// PutBucketTagging implements backend.Backend.
func (b *backend) PutBucketTagging(ctx context.Context, bucket string, tags map[string]string) error {
	p, err := b.existing(ctx, bucket)
	if err != nil {
		return err
	}
	if err = b.posix.PutBucketTagging(ctx, p.path, tags); err == nil {
		err = b.sync(p.path)
	}
	return b.fail("set bucket tags", p, err)
}

// DeleteBucketTagging implements backend.Backend.
func (b *backend) DeleteBucketTagging(ctx context.Context, bucket string) error {
	return b.PutBucketTagging(ctx, bucket, nil)
}

// existing is inBucket for a bucket that must exist.
func (b *backend) existing(ctx context.Context, bucket string) (place, error) {
	p, err := b.inBucket(ctx, bucket)
	if err != nil {
		return place{}, err
	}
	info, err := b.lstat(p)
	if err == nil && isStaged(info) {
		err = s3err.GetBucketErr(s3err.ErrNoSuchBucket, bucket)
	}
	return p, err
}

// lstat examines the directory of a bucket, which may be staged.
func (b *backend) lstat(p place) (fs.FileInfo, error) {
	info, err := os.Lstat(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s3err.GetBucketErr(s3err.ErrNoSuchBucket, p.bucket)
	}
	return info, b.fail("find bucket", p, err)
}

// discard removes a directory of a VM: it is renamed aside, synced, then deleted.
func (b *backend) discard(path string) error {
	aside := filepath.Join(b.dir, removingDir, gateway.NewID().String())
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("put aside %s: %w", path, err)
	}
	if err := errors.Join(syncUp(filepath.Dir(path), filepath.Join(b.dir, vmsDir)), durable.Sync(filepath.Dir(aside))); err != nil {
		return err
	}
	return os.RemoveAll(aside)
}
