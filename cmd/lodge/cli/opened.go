package cli

import (
	"context"
	"fmt"

	"lodge/gateway"
	"lodge/gateway/api"
)

// closing is the command, in the VM, that ends what opens a bucket.
func closing(what, bucket string) string {
	switch what {
	case "policy":
		return "aws s3api delete-bucket-policy --bucket " + bucket
	case "acl":
		return "aws s3api put-bucket-ownership-controls --bucket " + bucket + " --ownership-controls 'Rules=[{ObjectOwnership=BucketOwnerEnforced}]'"
	case "website":
		return "aws s3api delete-bucket-website --bucket " + bucket
	}
	return "aws s3api put-public-access-block --bucket " + bucket + " --public-access-block-configuration RestrictPublicBuckets=true"
}

// opened returns what of a bucket's own settings may open it to everyone. A bucket that does not exist has none.
func (a *app) opened(ctx context.Context, vm, bucket string) ([]string, error) {
	u, err := a.client.S3Usage(ctx, vm, "", "")
	if err != nil {
		return nil, err
	}
	return openedIn(u, bucket), nil
}

func openedIn(u api.S3Usage, bucket string) []string {
	for _, b := range u.Buckets {
		if b.Name == bucket {
			return b.Open
		}
	}
	return nil
}

// warnOpen writes what opens a bucket, and the command that closes it.
func (a *app) warnOpen(vm, bucket string, by []string) {
	for _, what := range by {
		_, _ = fmt.Fprintf(a.err, "warning: %s/%s may still be open to everyone by its %s. To close it, in the VM: %s\n",
			vm, bucket, what, closing(what, bucket)) // it is as good as done
	}
}

// warnUnread writes that it could not be found out whether everyone may read a bucket. What was asked for is done.
func (a *app) warnUnread(vm, bucket string, err error) {
	_, _ = fmt.Fprintf(a.err, "warning: the settings of %s/%s could not be read, and may open it to everyone: %v\n", vm, bucket, err) // as above
}

// warnPublic writes that everyone may read a bucket, if that may be so: by its share, or by its own settings.
func (a *app) warnPublic(ctx context.Context, vm, bucket string) error {
	m, err := a.client.Show(ctx, vm)
	if err != nil {
		return err
	}
	for _, share := range m.Buckets {
		if share.Bucket == bucket && share.Visibility == gateway.Public {
			_, _ = fmt.Fprintf(a.err, "warning: everyone may list and read %s/%s. To close it: lodge share %s s3:%s private\n", vm, bucket, vm, bucket) // as above
		}
	}
	by, err := a.opened(ctx, vm, bucket)
	if err == nil {
		a.warnOpen(vm, bucket, by)
	}
	return err
}
