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
	Shares     []BucketShare `json:"shares,omitempty"`      // ordered by bucket, at most MaxShares; VM.ShareRev counts their changes
	Grants     []BucketGrant `json:"grants,omitempty"`      // to other VMs, at most MaxBucketGrants
}

// BucketAccess is what another VM may do with a bucket.
type BucketAccess string

// The kinds of access. One of a later Lodge opens nothing.
const (
	NoBucketAccess BucketAccess = ""
	ReadBucket     BucketAccess = "read"  // list and read
	WriteBucket    BucketAccess = "write" // also write and delete
)

// BucketGrant lets another VM use a bucket, which need not exist yet. It ends with both VMs: their
// UUIDs are not used again.
type BucketGrant struct {
	Bucket string       `json:"bucket"`
	To     ID           `json:"to"`
	Access BucketAccess `json:"access"`
}

// MaxBucketGrants limits the grants of a VM's buckets.
const MaxBucketGrants = 256

// GrantedTo returns what another VM may do with a bucket.
func (s S3Settings) GrantedTo(bucket string, to ID) BucketAccess {
	for _, g := range s.Grants {
		if g.Bucket == bucket && g.To == to && (g.Access == ReadBucket || g.Access == WriteBucket) {
			return g.Access
		}
	}
	return NoBucketAccess
}

// WithGrant returns s with what a VM may do with a bucket replaced; NoBucketAccess removes it.
func (s S3Settings) WithGrant(grant BucketGrant) S3Settings {
	s.Grants = slices.DeleteFunc(slices.Clone(s.Grants), func(g BucketGrant) bool { return g.Bucket == grant.Bucket && g.To == grant.To })
	if grant.Access != NoBucketAccess {
		s.Grants = append(s.Grants, grant)
	}
	return s
}

// BucketShare is the visibility of a bucket, which need not exist yet. Of the Share, the port is 0.
type BucketShare struct {
	Bucket string `json:"bucket"`
	Share
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

// Share returns that of a bucket; a private one if there is none.
func (s S3Settings) Share(bucket string) Share {
	if i, ok := s.findShare(bucket); ok && bucket != "" {
		return s.Shares[i].Share
	}
	return Share{Visibility: Private}
}

func (s S3Settings) findShare(bucket string) (int, bool) {
	return slices.BinarySearchFunc(s.Shares, bucket, func(b BucketShare, bucket string) int { return cmp.Compare(b.Bucket, bucket) })
}

// withShare returns s with the share of a bucket replaced; a private one is none.
func (s S3Settings) withShare(bucket string, share Share) S3Settings {
	i, ok := s.findShare(bucket)
	s.Shares = slices.Clone(s.Shares)
	if ok {
		s.Shares = slices.Delete(s.Shares, i, i+1)
	}
	if share.Visibility != Private {
		s.Shares = slices.Insert(s.Shares, i, BucketShare{bucket, share})
	}
	return s
}

// ShareOf returns the share of a bucket or, if that is "", of a port.
func (m *VM) ShareOf(bucket string, port uint16) Share {
	if bucket == "" {
		return m.Share(port)
	}
	return m.S3.Share(bucket)
}

// Reshare returns m with the share of a bucket or, if that is "", of the share's port replaced.
func (m VM) Reshare(bucket string, share Share) VM {
	if bucket == "" {
		m.Shares = m.WithShare(share)
	} else {
		m.S3 = m.S3.withShare(bucket, share)
	}
	m.ShareRev++
	return m
}

// S3Usage is how much is stored: bodies as clients see them, older versions included.
type S3Usage struct {
	Bytes        int64 `json:"bytes"`         // of all versions
	Objects      int64 `json:"objects"`       // versions and delete markers
	PendingBytes int64 `json:"pending_bytes"` // in parts of multipart uploads in progress; they count for the quota
	Uploads      int64 `json:"uploads"`       // in progress
	RecordBytes  int64 `json:"record_bytes"`  // what the records of objects count for the quota: 1 KiB each
	HeldBytes    int64 `json:"held_bytes"`    // of the VM: what only checkpoints hold; it counts for the quota

	// Open names what of a bucket's own settings may open it to everyone, whatever its share is: "policy", "acl", "website".
	Open []string `json:"open,omitempty"`
}

// S3Damage is an object, or a file, that the check of what is stored has found damaged.
type S3Damage struct {
	VM     ID     // zero: of a file that is no VM's
	Bucket string // "" when it is not known
	Key    string
	File   string // below the directory of the objects, if it is about one
	Reason string
}
