package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway"
)

type s3Cmd struct {
	Ls s3LsCmd `cmd:"" help:"List a VM's buckets, or the objects of one."`
	Cp s3CpCmd `cmd:"" help:"Copy one object in or out."`
	Rm s3RmCmd `cmd:"" help:"Remove an object, or all below a prefix."`

	Sync s3SyncCmd `cmd:"" help:"Make a bucket like a directory, or a directory like a bucket."`

	Grant  s3GrantCmd  `cmd:"" help:"Let another VM use a bucket."`
	Grants s3GrantsCmd `cmd:"" help:"List what VMs may do with each other's buckets."`

	Creds s3CredsCmd `cmd:"" help:"Make credentials for a VM's objects from anywhere, or revoke them."`
	URL   s3URLCmd   `cmd:"" help:"Make a link by which anybody reads one object, or uploads it." name:"url"`
	Usage s3UsageCmd `cmd:"" help:"Show how much a VM has stored."`
	Fsck  s3FsckCmd  `cmd:"" help:"Check what is stored, and list what is damaged."`
	Quota s3QuotaCmd `cmd:"" help:"Limit how much a VM or a bucket may store."`
}

// s3Client is a client of S3 that acts for the VM, over the host's own socket. It signs with
// credentials that lodged makes.
func (a *app) s3Client(ctx context.Context, name string) (*minio.Client, error) {
	keys, err := a.client.Credentials(ctx, name)
	if err != nil {
		return nil, err
	}
	socket := gateway.S3Socket(filepath.Dir(a.Socket))
	dialer := &net.Dialer{}
	client, err := minio.New(gateway.S3Host, &minio.Options{
		Creds:        credentials.NewStaticV4(keys.AccessKey, keys.SecretKey, ""),
		Region:       gateway.S3Region, // given, so that the client does not ask for it
		BucketLookup: minio.BucketLookupPath,
		MaxRetries:   3,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make S3 client: %w", err)
	}
	return client, nil
}

// s3Error gives an answer of S3 its kind and a next step.
func s3Error(ctx context.Context, name string, err error) error {
	if err == nil || ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	answer := minio.ToErrorResponse(err)
	switch answer.Code {
	case minio.NoSuchBucket, minio.NoSuchKey, "NotFound":
		return gateway.Errorf(gateway.KindNotFound, "no such bucket or object: %s", strings.Trim(answer.BucketName+"/"+answer.Key, "/")).
			Because(err).WithHint("List what exists: lodge s3 ls %s", name)
	case minio.AccessDenied:
		return gateway.Errorf(gateway.KindDenied, "S3: %s", answer.Message).Because(err)
	case "":
		return gateway.Errorf(gateway.KindUnavailable, "S3 does not answer: %v", err).Because(err).
			WithHint("See lodged's log: journalctl -u lodged")
	}
	switch answer.StatusCode {
	case http.StatusInsufficientStorage:
		return gateway.Errorf(gateway.KindNoSpace, "S3: %s", answer.Message).Because(err)
	case http.StatusBadRequest:
		return gateway.Invalid("S3: %s", answer.Message).Because(err)
	default:
		return gateway.Errorf(gateway.KindUnavailable, "S3: %s (%s)", answer.Message, answer.Code).Because(err)
	}
}
