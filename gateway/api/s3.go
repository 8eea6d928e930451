package api

import (
	"cmp"
	"context"
	"log/slog"
	"regexp"
	"slices"

	"lodge/gateway"
)

// S3Usage is what a VM has stored in S3, or what is in one bucket of it.
type S3Usage struct {
	VM     string `json:"vm"`
	Bucket string `json:"bucket,omitempty"` // without one: all buckets
	Prefix string `json:"prefix,omitempty"` // of the objects that were counted
	gateway.S3Usage
	QuotaBytes int64           `json:"quota_bytes"` // of the VM, or of the bucket; 0: none
	Buckets    []S3BucketUsage `json:"buckets"`     // ordered by name; those with a quota too that do not exist yet
}

// S3BucketUsage is what a bucket has stored.
type S3BucketUsage struct {
	Name string `json:"name"`
	gateway.S3Usage
	QuotaBytes int64 `json:"quota_bytes"` // 0: none but the VM's
}

// S3Usage returns what a VM has stored; with a bucket, what is below a prefix there.
func (s Session) S3Usage(ctx context.Context, name, bucket, prefix string) (S3Usage, error) {
	m, err := s.vm(verbS3Usage, name)
	if err != nil {
		return S3Usage{}, err
	}
	return s.s3Usage(ctx, m, bucket, prefix)
}

func (s Session) s3Usage(ctx context.Context, m gateway.VM, bucket, prefix string) (S3Usage, error) {
	u := S3Usage{VM: m.Name, Bucket: bucket, Prefix: prefix, QuotaBytes: m.S3.Quota(s.api.S3Quota), Buckets: []S3BucketUsage{}}
	if bucket != "" {
		var err error
		u.QuotaBytes = m.S3.BucketQuota(bucket)
		u.S3Usage, err = s.api.Objects.UsageBelow(ctx, m.ID, bucket, prefix)
		return u, err
	}
	all, buckets, err := s.api.Objects.Usage(ctx, m.ID)
	if err != nil {
		return S3Usage{}, err
	}
	u.S3Usage = all
	for name, b := range buckets {
		u.Buckets = append(u.Buckets, S3BucketUsage{Name: name, S3Usage: b, QuotaBytes: m.S3.BucketQuota(name)})
	}
	for _, b := range m.S3.Buckets {
		if _, exists := buckets[b.Name]; !exists {
			u.Buckets = append(u.Buckets, S3BucketUsage{Name: b.Name, QuotaBytes: b.QuotaBytes})
		}
	}
	slices.SortFunc(u.Buckets, func(a, b S3BucketUsage) int { return cmp.Compare(a.Name, b.Name) })
	return u, nil
}

// SetS3Quota limits what a bucket may store or, without one, the VM as a whole, which is for owners of the host to set. The
// bytes are 1 MiB to 1 PiB; 0 is the host's default, for a bucket none; gateway.NoS3Quota is none. Writes obey it from then
// on; nothing is removed.
func (s Session) SetS3Quota(ctx context.Context, name, bucket string, bytes int64) (S3Usage, error) {
	m, err := s.vm(verbSetS3Quota, name)
	if err != nil {
		return S3Usage{}, err
	}
	if err := checkS3Quota(bucket, bytes); err != nil {
		return S3Usage{}, err
	}
	if bucket == "" && !s.owns() {
		return S3Usage{}, gateway.Errorf(gateway.KindDenied, "only an owner of this host may set how much %s stores in all", m.Name).
			WithHint("You may limit one bucket: lodge s3 quota %s/BUCKET 1GiB", m.Name)
	}
	m, err = s.update(ctx, verbSetS3Quota, m.ID, func(m *gateway.VM) error { return applyS3Quota(m, bucket, bytes) })
	if err != nil {
		return S3Usage{}, err
	}
	s.audit(ctx, gateway.EventS3QuotaSet, gateway.LogVM(m.Identity), slog.String("bucket", bucket), slog.Int64("bytes", bytes))
	return s.s3Usage(ctx, m, "", "")
}

// bucketName is what S3 allows, but for some shapes of dots, which no bucket has.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func checkS3Quota(bucket string, bytes int64) error {
	if bucket != "" {
		if err := checkBucketName(bucket); err != nil {
			return err
		}
	}
	if bytes != 0 && bytes != gateway.NoS3Quota && (bytes < gateway.MinS3Quota || bytes > gateway.MaxS3Quota) {
		return gateway.Invalid("a quota of %d bytes", bytes).WithHint("A quota is 1MiB to 1PiB, such as 10GiB, or none.")
	}
	return nil
}

func applyS3Quota(m *gateway.VM, bucket string, bytes int64) error {
	if m.Desired == gateway.Removed {
		return gateway.NotFound(m.Name)
	}
	if bucket == "" {
		m.S3.QuotaBytes = bytes
		return nil
	}
	m.S3 = m.S3.WithBucketQuota(bucket, bytes)
	if len(m.S3.Buckets) > gateway.MaxBucketQuotas {
		return gateway.Errorf(gateway.KindConflict, "%d buckets of %s have a quota, which is the limit", gateway.MaxBucketQuotas, m.Name).
			WithHint("Remove one: lodge s3 quota %s/BUCKET none", m.Name)
	}
	return nil
}
