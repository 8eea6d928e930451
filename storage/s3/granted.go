package s3

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"lodge/gateway"
)

// ParseGranted is ParseTarget for a bucket of another VM, whose name is <vm>_<bucket> in the host
// or the path. No VM and no bucket has an underscore in its name, so no own bucket is meant, now or
// later. ok is false for any other request.
func ParseGranted(r *http.Request) (vm string, t Target, ok bool, err error) {
	named, inHost := gateway.SplitS3Host(r.Host)
	key := strings.TrimPrefix(r.URL.Path, "/")
	if !inHost || named == "" {
		named, key, _ = strings.Cut(key, "/")
	}
	if vm, t.Bucket, ok = strings.Cut(named, "_"); !ok {
		return "", Target{}, false, nil
	}
	if err := checkBucket(t.Bucket); err != nil {
		return "", t, true, err
	}
	if t.Key = key; key != "" {
		err = checkKey(key)
	}
	return vm, t, true, err
}

// CopySource is the bucket of a copy's source.
type CopySource struct {
	VM      gateway.Identity // whose bucket it is
	Bucket  string           // its name there
	Granted gateway.BucketAccess
	Ctx     context.Context // of the copy: it ends with the grant
	Leave   func()          // to call after the copy
}

// ownSource is a source in a namespace of its own.
func ownSource(ctx context.Context, vm gateway.Identity, bucket string) CopySource {
	return CopySource{VM: vm, Bucket: bucket, Ctx: ctx, Leave: func() {}}
}

// InsideSource returns the source that a VM names at its tap: in its own namespace, whoever's bucket the copy goes to,
// or in one that is granted to it. ByGrant finds such a one.
func InsideSource(ctx context.Context, vm gateway.Identity, bucket string, byGrant func(vm, bucket string) (CopySource, error)) (CopySource, error) {
	owner, name, granted := strings.Cut(bucket, "_")
	if !granted {
		return ownSource(ctx, vm, bucket), nil
	}
	if checkBucket(name) != nil {
		return CopySource{}, errSourceBucket()
	}
	return byGrant(owner, name)
}

func errSourceBucket() error { return invalidArgument("Invalid copy source bucket name") }

// readActions and writeActions are what a VM may do with another one's bucket. What decides about a
// bucket, its versions and its protection is its owner's.
func readActions() []string {
	return []string{
		"GetObject", "GetObjectVersion", "GetObjectAttributes", "GetObjectVersionAttributes", "GetObjectTagging", "GetObjectVersionTagging",
		"ListBucket", "ListBucketVersions", "GetBucketLocation", "GetBucketVersioning",
	}
}

func writeActions() []string {
	return []string{
		"PutObject", "DeleteObject", "PutObjectTagging", "DeleteObjectTagging", "AbortMultipartUpload", "ListMultipartUploadParts", "ListBucketMultipartUploads",
	}
}

// covers reports whether a caller may do something with the bucket, as far as that is another VM's.
func (who Caller) covers(action string) bool {
	return who.Granted == gateway.NoBucketAccess || slices.Contains(readActions(), action) ||
		who.Granted == gateway.WriteBucket && slices.Contains(writeActions(), action)
}
