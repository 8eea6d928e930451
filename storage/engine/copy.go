package engine

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	vgw "github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// source parses and checks an x-amz-copy-source. Its bucket is looked up in the VM's own namespace
// like any other.
func source(header *string) (bucket, key string, err error) {
	bucket, key, version, err := vgw.ParseCopySource(deref(header))
	switch {
	case err != nil:
		return "", "", err
	case version != "" && version != "null":
		return "", "", s3err.GetInvalidArgumentErr(s3err.InvalidArgVersionId, version)
	case CheckBucket(bucket) != nil:
		return "", "", s3err.GetInvalidArgumentErr(s3err.InvalidArgCopySourceBucket, deref(header))
	}
	return bucket, key, CheckKey(key)
}

// CopyObject implements backend.Backend: a GET and a PUT, so that a copy onto itself is as atomic
// as any other write.
func (b *backend) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	fail := func(err error) (s3response.CopyObjectOutput, error) { return s3response.CopyObjectOutput{}, err }
	bucket, key, err := source(in.CopySource)
	if err != nil {
		return fail(err)
	}
	if bucket == deref(in.Bucket) && key == deref(in.Key) && in.MetadataDirective == types.MetadataDirectiveCopy {
		return fail(s3err.GetAPIError(s3err.ErrInvalidCopyDest))
	}
	src, err := b.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: new(string), ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		return fail(err)
	}
	if src.Body != nil {
		defer func() { _ = src.Body.Close() }() // read only
	}
	err = vgw.EvaluatePreconditions(deref(src.ETag), deref(src.LastModified), vgw.PreConditions{
		IfMatch: in.CopySourceIfMatch, IfNoneMatch: in.CopySourceIfNoneMatch,
		IfModSince: in.CopySourceIfModifiedSince, IfUnmodeSince: in.CopySourceIfUnmodifiedSince,
	})
	if err != nil {
		return fail(err)
	}
	if deref(src.ContentLength) > maxCopyBytes {
		return fail(s3err.GetCopySourceObjectTooLargeErr(maxCopyBytes))
	}
	put, err := b.copyInput(ctx, in, src, bucket, key)
	if err != nil {
		return fail(err)
	}
	out, err := b.PutObject(ctx, put)
	if err != nil {
		return fail(err)
	}
	return b.copied(ctx, in, out)
}

// copyInput is the PUT of a copy: its directives decide whether properties and tags are the
// source's or the request's.
func (b *backend) copyInput(ctx context.Context, in s3response.CopyObjectInput, src *s3.GetObjectOutput, bucket, key string) (s3response.PutObjectInput, error) {
	put := s3response.PutObjectInput{
		Bucket: in.Bucket, Key: in.Key, Body: src.Body, ContentLength: src.ContentLength, ChecksumAlgorithm: in.ChecksumAlgorithm,
		ContentType: src.ContentType, ContentEncoding: src.ContentEncoding, ContentDisposition: src.ContentDisposition,
		ContentLanguage: src.ContentLanguage, CacheControl: src.CacheControl, Expires: src.ExpiresString, Metadata: src.Metadata,
		WebsiteRedirectLocation: in.WebsiteRedirectLocation, Tagging: in.Tagging,
	}
	if in.MetadataDirective == types.MetadataDirectiveReplace {
		put.ContentType, put.ContentEncoding, put.ContentDisposition = in.ContentType, in.ContentEncoding, in.ContentDisposition
		put.ContentLanguage, put.CacheControl, put.Expires, put.Metadata = in.ContentLanguage, in.CacheControl, in.Expires, in.Metadata
	}
	if in.TaggingDirective != types.TaggingDirectiveReplace {
		tags, err := b.GetObjectTagging(ctx, bucket, key, "")
		if err != nil {
			return put, err
		}
		values := url.Values{}
		for k, v := range tags {
			values.Set(k, v)
		}
		encoded := values.Encode()
		put.Tagging = &encoded
	}
	if put.ChecksumAlgorithm == "" {
		put.ChecksumAlgorithm = algorithmOf(src)
	}
	return put, nil
}

func (b *backend) copied(ctx context.Context, in s3response.CopyObjectInput, out s3response.PutObjectOutput) (s3response.CopyObjectOutput, error) {
	now, err := b.HeadObject(ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key})
	if err != nil {
		return s3response.CopyObjectOutput{}, err
	}
	return s3response.CopyObjectOutput{CopyObjectResult: &s3response.CopyObjectResult{
		ETag: &out.ETag, LastModified: now.LastModified, ChecksumType: out.ChecksumType,
		ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC32C: out.ChecksumCRC32C, ChecksumCRC64NVME: out.ChecksumCRC64NVME,
		ChecksumSHA1: out.ChecksumSHA1, ChecksumSHA256: out.ChecksumSHA256, ChecksumSHA512: out.ChecksumSHA512,
		ChecksumMD5: out.ChecksumMD5, ChecksumXXHASH64: out.ChecksumXXHASH64, ChecksumXXHASH3: out.ChecksumXXHASH3,
		ChecksumXXHASH128: out.ChecksumXXHASH128,
	}}, nil
}

// algorithmOf returns the kind of an object's checksum. A PUT cannot make the composite ones of
// multipart objects.
func algorithmOf(o *s3.GetObjectOutput) types.ChecksumAlgorithm {
	switch {
	case o.ChecksumType == types.ChecksumTypeComposite:
		return ""
	case o.ChecksumCRC32 != nil:
		return types.ChecksumAlgorithmCrc32
	case o.ChecksumCRC32C != nil:
		return types.ChecksumAlgorithmCrc32c
	case o.ChecksumSHA1 != nil:
		return types.ChecksumAlgorithmSha1
	case o.ChecksumSHA256 != nil:
		return types.ChecksumAlgorithmSha256
	}
	return ""
}

// UploadPartCopy implements backend.Backend: a GET of a range and the PUT of a part.
func (b *backend) UploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (s3response.CopyPartResult, error) {
	fail := func(err error) (s3response.CopyPartResult, error) { return s3response.CopyPartResult{}, err }
	bucket, key, err := source(in.CopySource)
	if err != nil {
		return fail(err)
	}
	head, err := b.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return fail(err)
	}
	start, length, err := vgw.ParseCopySourceRange(deref(head.ContentLength), deref(in.CopySourceRange))
	if err != nil {
		return fail(err)
	}
	if length > maxCopyBytes {
		return fail(s3err.GetCopySourceObjectTooLargeErr(maxCopyBytes))
	}
	err = vgw.EvaluatePreconditions(deref(head.ETag), deref(head.LastModified), vgw.PreConditions{
		IfMatch: in.CopySourceIfMatch, IfNoneMatch: in.CopySourceIfNoneMatch,
		IfModSince: in.CopySourceIfModifiedSince, IfUnmodeSince: in.CopySourceIfUnmodifiedSince,
	})
	if err != nil {
		return fail(err)
	}
	span := ""
	if length > 0 {
		span = fmt.Sprintf("bytes=%d-%d", start, start+length-1)
	}
	etag := strings.Trim(deref(head.ETag), `"`) // as versitygw compares it
	src, err := b.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: &span, IfMatch: &etag})
	if err != nil {
		return fail(err)
	}
	var body io.Reader = strings.NewReader("")
	if src.Body != nil {
		defer func() { _ = src.Body.Close() }() // read only
		body = src.Body
	}
	out, err := b.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId, PartNumber: in.PartNumber, Body: body, ContentLength: src.ContentLength,
	})
	if err != nil {
		return fail(err)
	}
	return s3response.CopyPartResult{
		ETag: out.ETag, LastModified: *head.LastModified, ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC32C: out.ChecksumCRC32C,
		ChecksumCRC64NVME: out.ChecksumCRC64NVME, ChecksumSHA1: out.ChecksumSHA1, ChecksumSHA256: out.ChecksumSHA256,
	}, nil
}
