package s3

import (
	"net/http"
	"net/netip"
	"strings"
	"unicode/utf8"

	"lodge/gateway"
)

const (
	maxKeyBytes   = 1024 // S3's limit
	bucketLetters = "abcdefghijklmnopqrstuvwxyz0123456789.-"
)

// Target is the subject of a request: all buckets (both empty), a bucket, or an object.
type Target struct{ Bucket, Key string }

// ParseTarget parses bucket and key from the host and the path, decoded exactly once, and checks
// them. A key is opaque: "x", "x/", "x//y" and "../x" are different keys, and no file has their names.
func ParseTarget(r *http.Request) (Target, error) {
	bucket, ok := gateway.SplitS3Host(r.Host)
	if !ok { // a client that uses the address
		bucket = ""
	}
	return TargetBelow(bucket, r)
}

// TargetBelow is ParseTarget where the host has named a bucket, or none.
func TargetBelow(bucket string, r *http.Request) (Target, error) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	t := Target{bucket, path}
	if bucket == "" {
		t.Bucket, t.Key, _ = strings.Cut(path, "/")
	}
	if t.Bucket == "" {
		if t.Key != "" {
			return t, Errorf(http.StatusBadRequest, "InvalidBucketName", "The path has no bucket.")
		}
		return t, nil
	}
	if err := checkBucket(t.Bucket); err != nil {
		return t, err
	}
	if t.Key == "" {
		return t, nil
	}
	return t, checkKey(t.Key)
}

// checkBucket refuses names that S3 does not allow, with the reason: 3 to 63 lower-case letters,
// digits, dots and dashes, a letter or digit at both ends, no "..", not an IP address.
func checkBucket(name string) error {
	switch {
	case len(name) < 3 || len(name) > 63:
		return badBucket(name, "has %d characters; 3 to 63 are allowed", len(name))
	case strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(bucketLetters, r) }):
		return badBucket(name, "has characters other than lower-case letters, digits, dots and dashes")
	case strings.Trim(name[:1]+name[len(name)-1:], ".-") != name[:1]+name[len(name)-1:]:
		return badBucket(name, "does not start and end with a letter or a digit")
	case strings.Contains(name, "..") || strings.Contains(name, ".-") || strings.Contains(name, "-."):
		return badBucket(name, "has a dot beside a dot or a dash")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return badBucket(name, "is an IP address")
	}
	return nil
}

func badBucket(name, format string, args ...any) error {
	return Errorf(http.StatusBadRequest, "InvalidBucketName", "The bucket name %.80q "+format+".", append([]any{name}, args...)...)
}

// checkKey refuses keys that S3 does not have: empty ones, those of more than 1,024 bytes, those that
// are not UTF-8, and those with a NUL, which no XML can list.
func checkKey(key string) error {
	switch {
	case key == "":
		return badKey(key, "is empty")
	case len(key) > maxKeyBytes:
		return errKeyTooLong(len(key))
	case !utf8.ValidString(key):
		return badKey(key, "is not UTF-8")
	case strings.Contains(key, "\x00"):
		return badKey(key, "has a NUL")
	}
	return nil
}

func errKeyTooLong(n int) error {
	return Errorf(http.StatusBadRequest, "KeyTooLongError", "The key has %d bytes; at most %d are possible.", n, maxKeyBytes)
}

func badKey(key, why string) error {
	return Errorf(http.StatusBadRequest, "InvalidArgument", "The key %.80q %s.", key, why)
}
