package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway"
	"lodge/gateway/api"
)

type s3CredsCmd struct {
	named

	Expires string `help:"How long they are valid, 1m to 7d." default:"1h" placeholder:"TIME"`
	Revoke  bool   `help:"End all credentials that were made so, and the links made with them."`
}

// Help is the text below the usage.
func (*s3CredsCmd) Help() string {
	return "They are shown once, and good for S3 alone: for all buckets of the VM, whether it runs or not. They end with the VM, and when who made them may no longer use it. " +
		"Path style addresses work everywhere."
}

// Run makes credentials, or revokes them.
func (c *s3CredsCmd) Run(ctx context.Context, a *app) error {
	if c.Revoke {
		if err := a.client.RevokeS3Keys(ctx, c.Name); err != nil {
			return err
		}
		return a.print(map[string]string{"revoked": c.Name}, func(w io.Writer) {
			row(w, "All S3 credentials of "+c.Name+" for outside have ended.")
		})
	}
	made, err := a.newS3Key(ctx, c.Name, c.Expires)
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) {
		row(w, "# until "+day(made.Expires))
		row(w, "export AWS_ENDPOINT_URL="+made.Endpoint)
		row(w, "export AWS_REGION="+made.Region)
		row(w, "export AWS_ACCESS_KEY_ID="+made.AccessKey)
		row(w, "export AWS_SECRET_ACCESS_KEY="+made.SecretKey)
	})
}

func (a *app) newS3Key(ctx context.Context, name, expires string) (api.S3Key, error) {
	life, err := keyLife(expires)
	if err != nil {
		return api.S3Key{}, err
	}
	return a.client.NewS3Key(ctx, name, life)
}

// keyLife parses how long credentials for outside are valid.
func keyLife(expires string) (time.Duration, error) {
	life, err := parseTime(expires)
	if err != nil || life < gateway.MinS3KeyLife || life > gateway.MaxS3KeyLife {
		return 0, gateway.Invalid("not a time: %.100q", expires).WithHint("It is at least 1m and at most 7d: 90m, 12h and 7d are times.")
	}
	return life, nil
}

type s3URLCmd struct {
	Object  string `arg:"" help:"VM/BUCKET/KEY." predictor:"vm"`
	Expires string `help:"How long the link is valid, 1m to 7d." default:"1h" placeholder:"TIME"`
	Upload  bool   `help:"A link to upload the object, with PUT, in place of one to read it."`
}

// Help is the text below the usage.
func (*s3URLCmd) Help() string {
	return "The object need not exist. The link works while the VM is off, and ends with lodge s3 creds VM --revoke."
}

// Run makes a presigned URL.
func (c *s3URLCmd) Run(ctx context.Context, a *app) error {
	name, path, _ := strings.Cut(c.Object, "/")
	bucket, key, _ := strings.Cut(path, "/")
	if bucket == "" || key == "" {
		return gateway.Invalid("not the name of an object: %.100q", c.Object).WithHint("Write it as VM/BUCKET/KEY, such as blog/photos/a.jpg.")
	}
	made, err := a.newS3Key(ctx, name, c.Expires)
	if err != nil {
		return err
	}
	link, err := presign(ctx, made, bucket, key, c.Upload)
	if err != nil {
		return err
	}
	return a.print(map[string]any{"url": link, "expires": made.Expires}, func(w io.Writer) { row(w, link) })
}

// presign makes a URL that is valid for as long as its credentials.
func presign(ctx context.Context, keys api.S3Key, bucket, key string, upload bool) (string, error) {
	endpoint, err := url.Parse(keys.Endpoint)
	if err != nil {
		return "", fmt.Errorf("read the address of S3: %w", err)
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewStaticV4(keys.AccessKey, keys.SecretKey, ""), Secure: true, Region: keys.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		return "", fmt.Errorf("make S3 client: %w", err)
	}
	life := max(time.Until(keys.Expires), time.Second)
	made := func() (*url.URL, error) { return client.PresignedGetObject(ctx, bucket, key, life, nil) }
	if upload {
		made = func() (*url.URL, error) { return client.PresignedPutObject(ctx, bucket, key, life) }
	}
	link, err := made()
	if err != nil {
		return "", gateway.Invalid("no link to %s/%s: %v", bucket, key, err).Because(err)
	}
	return link.String(), nil
}
