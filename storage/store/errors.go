package store

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"

	"lodge/gateway/durable"
)

// Errors that callers branch on.
var (
	ErrName           = errors.New("bad name") // the message has the reason
	ErrNoBucket       = errors.New("no such bucket")
	ErrBucketExists   = errors.New("the bucket exists")
	ErrBucketNotEmpty = errors.New("the bucket has objects, versions or uploads")
	ErrTooManyBuckets = errors.New("the VM has too many buckets")
	ErrNoKey          = errors.New("no such key")
	ErrNoVersion      = errors.New("no such version")
	ErrDeleted        = errors.New("the version is a delete marker") // Head and Get return the marker with it
	ErrPrecondition   = errors.New("a condition does not hold")
	ErrDigest         = errors.New("the body does not have the MD5 it was sent with")
	ErrSize           = errors.New("the body does not have the length it was sent with")
	ErrLocked         = errors.New("the version is retained")
	ErrNoUpload       = errors.New("no such upload")
	ErrTooManyUploads = errors.New("the VM has too many uploads in progress")
	ErrPart           = errors.New("a part is missing or another one than listed")
	ErrPartNumber     = errors.New("part numbers are 1 to 10,000")
	ErrPartOrder      = errors.New("the parts are not in ascending order")
	ErrPartSmall      = errors.New("a part other than the last is smaller than 5 MiB")
	ErrSealedParts    = errors.New("an encrypted multipart object cannot be copied without its list of parts")
	ErrRange          = errors.New("the source does not have that range")
	ErrTooLarge       = errors.New("metadata or a bucket's configuration is too large")
	ErrQuota          = errors.New("quota exceeded") // a *QuotaError
	ErrFull           = errors.New("the host has no space left for objects")
	ErrDamaged        = errors.New("stored data is damaged")
	ErrRemoved        = errors.New("the VM has been removed")
	ErrNotEmpty       = errors.New("the VM has objects")
	ErrNoSnapshot     = errors.New("no such snapshot")
	ErrSnapshotExists = errors.New("there is a snapshot of that name")
	ErrUnfinished     = errors.New("a restore or a drop of a snapshot has not ended, or has failed: repeat it")
	ErrRestored       = errors.New("the VM's objects were restored meanwhile")
	ErrHeld           = errors.New("the VM's objects are held back for a checkpoint")
)

// QuotaError is ErrQuota with the figures, in bytes.
type QuotaError struct {
	Bucket     string // "" when it is the VM's limit
	Limit      int64
	Used, Asks int64 // Asks is what the write would add
}

func (e *QuotaError) Error() string {
	what := "the VM"
	if e.Bucket != "" {
		what = "bucket " + e.Bucket
	}
	return fmt.Sprintf("quota exceeded: %s may store %s, has %s, and this write adds %s", what,
		humanize.IBytes(uint64(max(e.Limit, 0))), humanize.IBytes(uint64(max(e.Used, 0))), humanize.IBytes(uint64(max(e.Asks, 0))))
}

// Is makes errors.Is(err, ErrQuota) true.
func (e *QuotaError) Is(target error) bool { return target == ErrQuota }

// full turns an error for want of space into ErrFull, and leaves others.
func full(err error) error {
	if durable.IsFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}
