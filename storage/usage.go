package storage

import (
	"context"
	"errors"

	"lodge/gateway"
	"lodge/storage/store"
)

// limits returns what a VM and a bucket of it may store now. Writes that are under way keep what they
// were admitted with.
func (c Config) limits(id gateway.ID, bucket string) store.Limits {
	m, _ := c.Directory.ByID(id) // a VM that is gone takes no commits
	return store.Limits{VM: m.S3.Quota(c.Quota), Bucket: m.S3.BucketQuota(bucket)}
}

// Usage returns what a VM has stored, and of that each bucket.
func (s *Server) Usage(_ context.Context, id gateway.ID) (gateway.S3Usage, map[string]gateway.S3Usage, error) {
	all, err := s.objects.Usage(id)
	buckets := make(map[string]gateway.S3Usage, len(all.Buckets))
	for name, u := range all.Buckets {
		shown := shownUsage(u)
		if b, failed := s.objects.Bucket(id, name); failed == nil {
			shown.Open = s.protocol.Opened(b)
		}
		buckets[name] = shown
	}
	return shownUsage(all), buckets, err
}

// maxScans is how many UsageBelow may be under way. Each reads the records of a whole bucket; further ones wait.
const maxScans = 2

// UsageBelow counts the objects of a bucket below a prefix, older versions included. It reads all their
// records. KindNotFound: there is no such bucket.
func (s *Server) UsageBelow(ctx context.Context, id gateway.ID, bucket, prefix string) (gateway.S3Usage, error) {
	select {
	case s.scans <- struct{}{}:
		defer func() { <-s.scans }()
	case <-ctx.Done():
		return gateway.S3Usage{}, ctx.Err()
	}
	u, err := s.objects.UsageOf(ctx, id, bucket, prefix)
	if errors.Is(err, store.ErrNoBucket) {
		err = gateway.Errorf(gateway.KindNotFound, "no bucket %.100q", bucket)
	}
	return shownUsage(u), err
}

func shownUsage(u store.Usage) gateway.S3Usage {
	return gateway.S3Usage{
		Bytes: u.Bytes, Objects: u.Objects, PendingBytes: u.Pending, Uploads: u.Uploads,
		RecordBytes: u.Records(), HeldBytes: u.Held,
	}
}
