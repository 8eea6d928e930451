package engine

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/s3response"
)

// ListObjects implements backend.Backend.
func (b *backend) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	p, err := b.existing(ctx, *in.Bucket)
	if err != nil {
		return s3response.ListObjectsResult{}, err
	}
	inside := *in
	inside.Bucket = &p.path
	res, err := b.posix.ListObjects(ctx, &inside)
	res.Name = &p.bucket
	own(res.Contents, p.id.String())
	return res, b.fail("list objects", p, err)
}

// ListObjectsV2 implements backend.Backend.
func (b *backend) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	p, err := b.existing(ctx, *in.Bucket)
	if err != nil {
		return s3response.ListObjectsV2Result{}, err
	}
	inside := *in
	inside.Bucket = &p.path
	res, err := b.posix.ListObjectsV2(ctx, &inside)
	res.Name = &p.bucket
	own(res.Contents, p.id.String())
	return res, b.fail("list objects", p, err)
}

// ListObjectVersions implements backend.Backend.
func (b *backend) ListObjectVersions(ctx context.Context, in *s3.ListObjectVersionsInput) (s3response.ListVersionsResult, error) {
	p, err := b.existing(ctx, *in.Bucket)
	if err != nil {
		return s3response.ListVersionsResult{}, err
	}
	inside := *in
	inside.Bucket = &p.path
	res, err := b.posix.ListObjectVersions(ctx, &inside)
	res.Name = &p.bucket
	return res, b.fail("list versions", p, err)
}

// own makes the VM the owner where versitygw asks for one; versitygw would read it from an
// attribute of the bucket.
func own(objects []s3response.Object, owner string) {
	for i := range objects {
		if objects[i].Owner != nil {
			objects[i].Owner = &types.Owner{ID: &owner}
		}
	}
}
