package gateway

import (
	"cmp"
	"slices"
)

// Limits of S3Settings.
const (
	MaxBucketQuotas = 1000    // as many as a VM has buckets
	MinS3Quota      = 1 << 20 // bytes
	MaxS3Quota      = 1 << 50 // bytes
)

// NoS3Quota as a quota is none at all, whatever the host's default is.
const NoS3Quota int64 = -1

// S3Settings are what was set of a VM's S3. The zero value has the host's default quota. Values are
// copies; the list is never changed in place.
type S3Settings struct {
	QuotaBytes int64         `json:"quota_bytes,omitempty"` // of all buckets; 0: the host's default; NoS3Quota: none
	Buckets    []BucketQuota `json:"buckets,omitempty"`     // ordered by name, at most MaxBucketQuotas
	KeyEpoch   uint32        `json:"key_epoch,omitempty"`   // counts how often its keys for outside were revoked
}

// BucketQuota is the quota of one bucket, which need not exist yet.
type BucketQuota struct {
	Name       string `json:"name"`
	QuotaBytes int64  `json:"quota_bytes"`
}

// Quota returns how many bytes the VM may store where the host's default is def; 0 is no limit.
func (s S3Settings) Quota(def int64) int64 {
	switch s.QuotaBytes {
	case 0:
		return def
	case NoS3Quota:
		return 0
	}
	return s.QuotaBytes
}

// BucketQuota returns how many bytes a bucket may store; 0 is no limit.
func (s S3Settings) BucketQuota(name string) int64 {
	if i, ok := s.findBucket(name); ok {
		return s.Buckets[i].QuotaBytes
	}
	return 0
}

// WithBucketQuota returns s with the quota of a bucket replaced; 0 removes it.
func (s S3Settings) WithBucketQuota(name string, bytes int64) S3Settings {
	i, ok := s.findBucket(name)
	s.Buckets = slices.Clone(s.Buckets)
	if ok {
		s.Buckets = slices.Delete(s.Buckets, i, i+1)
	}
	if bytes > 0 {
		s.Buckets = slices.Insert(s.Buckets, i, BucketQuota{name, bytes})
	}
	return s
}

func (s S3Settings) findBucket(name string) (int, bool) {
	return slices.BinarySearchFunc(s.Buckets, name, func(b BucketQuota, name string) int { return cmp.Compare(b.Name, name) })
}

// S3Usage is how much is stored: bodies as clients see them, older versions included.
type S3Usage struct {
	Bytes        int64 `json:"bytes"`         // of all versions
	Objects      int64 `json:"objects"`       // versions and delete markers
	PendingBytes int64 `json:"pending_bytes"` // in parts of multipart uploads in progress; they count for the quota
	Uploads      int64 `json:"uploads"`       // in progress
	RecordBytes  int64 `json:"record_bytes"`  // what the records of objects count for the quota: 1 KiB each
	HeldBytes    int64 `json:"held_bytes"`    // of the VM: what only checkpoints hold; it counts for the quota
}
