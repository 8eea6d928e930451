package engine

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/versity/versitygw/auth"
	vgw "github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"

	"lodge/gateway"
)

const (
	vmsDir      = "vms"
	removingDir = "removing"
)

// backend is versitygw's posix backend with a namespace per VM. Methods that it does not implement
// are refused (BackendUnsupported): an embedded posix backend would run them without a namespace.
type backend struct {
	vgw.BackendUnsupported
	posix   *posix.Posix
	dir     string // absolute
	log     *slog.Logger
	staging staging
	buckets stripes // read-locked while an object becomes visible, locked while a bucket is removed
	keys    stripes // locked while an object becomes visible or is removed, read-locked while one is opened
	uploads stripes // locked while a multipart upload is completed or aborted
}

var _ vgw.Backend = (*backend)(nil)

// place is the namespace, bucket and key of one request.
type place struct {
	id     gateway.ID
	bucket string // as the VM names it
	key    string // empty for a bucket
	path   string // the bucket's directory, absolute
}

func (p place) object() string { return filepath.Join(p.path, p.key) }

// String implements fmt.Stringer for versitygw.
func (b *backend) String() string { return "lodge" }

// NormalizeObjectKey implements backend.Backend: keys that could be normalised are refused
// (CheckKey).
func (b *backend) NormalizeObjectKey(_, key string) string { return key }

// vm returns the VM whose account signed the request.
func (b *backend) vm(ctx context.Context) (gateway.ID, error) {
	account, ok := ctx.Value("account").(auth.Account) // versitygw's key
	id, err := gateway.ParseID(account.Access)
	if !ok || err != nil {
		return gateway.ID{}, s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	return id, nil
}

// inBucket finds a bucket of the VM.
func (b *backend) inBucket(ctx context.Context, bucket string) (place, error) {
	id, err := b.vm(ctx)
	if err != nil {
		return place{}, err
	}
	return place{id: id, bucket: bucket, path: b.bucketPath(id, bucket)}, nil
}

// inObject finds an object of the VM.
func (b *backend) inObject(ctx context.Context, bucket, key *string) (place, error) {
	if bucket == nil || key == nil {
		return place{}, s3err.GetAPIError(s3err.ErrInvalidRequest)
	}
	p, err := b.inBucket(ctx, *bucket)
	p.key = *key
	return p, err
}

// vmPath is the directory of all that a VM has stored.
func (b *backend) vmPath(id gateway.ID) string { return filepath.Join(b.dir, vmsDir, id.String()) }

func (b *backend) bucketPath(id gateway.ID, bucket string) string {
	return filepath.Join(b.vmPath(id), bucket)
}

// sync syncs a change at path, below a bucket, before its answer is sent.
func (b *backend) sync(path string) error {
	return syncUp(path, filepath.Join(b.dir, vmsDir))
}
