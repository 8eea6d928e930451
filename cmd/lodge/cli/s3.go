package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway"
)

type s3Cmd struct {
	Name s3VM `arg:"" help:"The VM's name."`
}

// s3VM is the VM whose objects are meant.
type s3VM struct {
	Name string `arg:""`

	Ls s3LsCmd `cmd:"" help:"List buckets, or the objects of one."`
	Cp s3CpCmd `cmd:"" help:"Copy one object in or out."`
}

// AfterApply hands the VM to the verb below it.
func (v *s3VM) AfterApply(parsed *kong.Context) error {
	parsed.Bind(v)
	return nil
}

// s3Client speaks S3 as the VM, over the host's own socket: it signs with credentials that lodged mints for it.
func (a *app) s3Client(ctx context.Context, name string) (*minio.Client, error) {
	keys, err := a.client.Credentials(ctx, name)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(filepath.Dir(a.Socket), "s3.sock")
	dialer := &net.Dialer{}
	client, err := minio.New(gateway.S3Host, &minio.Options{
		Creds:        credentials.NewStaticV4(keys.AccessKey, keys.SecretKey, ""),
		Region:       "us-east-1", // given, so that nobody asks for it
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

// s3Error gives what S3 said its kind and a next step.
func s3Error(ctx context.Context, name string, err error) error {
	if err == nil || ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	said := minio.ToErrorResponse(err)
	switch said.Code {
	case minio.NoSuchBucket, minio.NoSuchKey, "NotFound":
		return gateway.Errorf(gateway.KindNotFound, "no such bucket or object: %s", strings.Trim(said.BucketName+"/"+said.Key, "/")).
			Because(err).WithHint("lodge s3 %s ls shows what there is.", name)
	case minio.AccessDenied:
		return gateway.Errorf(gateway.KindDenied, "S3: %s", said.Message).Because(err)
	case "":
		return gateway.Errorf(gateway.KindUnavailable, "S3 does not answer: %v", err).Because(err).
			WithHint("lodged's log says more: journalctl -u lodged")
	}
	switch said.StatusCode {
	case http.StatusInsufficientStorage:
		return gateway.Errorf(gateway.KindNoSpace, "S3: %s", said.Message).Because(err)
	case http.StatusBadRequest:
		return gateway.Invalid("S3: %s", said.Message).Because(err)
	default:
		return gateway.Errorf(gateway.KindUnavailable, "S3: %s (%s)", said.Message, said.Code).Because(err)
	}
}
