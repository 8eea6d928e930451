package cli

import (
	"context"
	"io"
	"strings"

	"lodge/gateway"
	"lodge/gateway/api"
)

type s3UsageCmd struct {
	Path string `arg:"" help:"VM for all its buckets, VM/BUCKET or VM/BUCKET/PREFIX to count the objects there." predictor:"vm"`
}

// Help is the text below the usage.
func (*s3UsageCmd) Help() string {
	return "Older versions of objects count, and so do the parts of multipart uploads that are not complete, 1 KiB for the record of each object, " +
		"and what only checkpoints of the VM hold, until those are removed."
}

// Run shows what is stored.
func (c *s3UsageCmd) Run(ctx context.Context, a *app) error {
	name, path, _ := strings.Cut(c.Path, "/")
	bucket, prefix, _ := strings.Cut(path, "/")
	u, err := a.client.S3Usage(ctx, name, bucket, prefix)
	if err != nil {
		return err
	}
	return a.print(u, func(w io.Writer) { describeUsage(w, u) })
}

type s3QuotaCmd struct {
	Path  string `arg:"" help:"VM, or VM/BUCKET." predictor:"vm"`
	Quota string `arg:"" help:"The most that may be stored, such as 10GiB; none; or, for a VM, default. Without it, usage and quotas are shown." name:"size" optional:""`
}

// Help is the text below the usage.
func (*s3QuotaCmd) Help() string {
	return "A write above the quota is refused with QuotaExceeded and the figures, the parts of a multipart upload too; nothing is removed. " +
		"The quota of a VM is set by an owner of the host; the default is s3_quota of lodged."
}

// Run sets a quota, or shows them.
func (c *s3QuotaCmd) Run(ctx context.Context, a *app) error {
	name, bucket, one := strings.Cut(c.Path, "/")
	if strings.Contains(bucket, "/") || one && bucket == "" {
		return gateway.Invalid("a quota is of a VM or of a bucket, not of %.100q", c.Path).WithHint("An example: lodge s3 quota %s/photos 1GiB", name)
	}
	u, err := c.set(ctx, a, name, bucket)
	if err != nil {
		return err
	}
	return a.print(u, func(w io.Writer) { describeUsage(w, u) })
}

func (c *s3QuotaCmd) set(ctx context.Context, a *app, name, bucket string) (api.S3Usage, error) {
	var bytes int64
	switch c.Quota {
	case "":
		return a.client.S3Usage(ctx, name, "", "")
	case "default":
	case "none":
		bytes = gateway.NoS3Quota
	default:
		quota, err := parseQuota(c.Quota)
		if err != nil {
			return api.S3Usage{}, err
		}
		bytes = *quota
	}
	return a.client.SetS3Quota(ctx, name, bucket, bytes)
}

// describeUsage writes usage and quotas as a table.
func describeUsage(w io.Writer, u api.S3Usage) {
	quota := func(bytes int64) string {
		if bytes == 0 {
			return "none"
		}
		return size(bytes)
	}
	row(w, "BUCKET", "STORED", "OBJECTS", "IN UPLOADS", "RECORDS", "QUOTA")
	for _, b := range u.Buckets {
		row(w, b.Name, size(b.Bytes), b.Objects, size(b.PendingBytes), size(b.RecordBytes), quota(b.QuotaBytes))
	}
	what := "all"
	if u.Bucket != "" {
		what = strings.TrimSuffix(u.Bucket+"/"+u.Prefix, "/")
	}
	row(w, what, size(u.Bytes), u.Objects, size(u.PendingBytes), size(u.RecordBytes), quota(u.QuotaBytes))
	if u.HeldBytes > 0 {
		row(w, "in checkpoints", size(u.HeldBytes))
	}
}
