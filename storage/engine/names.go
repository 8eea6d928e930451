package engine

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
)

const (
	maxKeyBytes  = 1024 // S3's limit
	maxPartBytes = 255  // NAME_MAX: a part of a key is a file name
)

// CheckBucket refuses names that S3 does not allow, with the reason: 3 to 63 lower-case letters,
// digits, dots and dashes, a letter or digit at both ends, no "..", not an IP address.
func CheckBucket(name string) error {
	switch {
	case len(name) < 3 || len(name) > 63:
		return badBucket(name, "has %d characters; 3 to 63 are allowed", len(name))
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "":
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
	return s3err.APIError{
		Code:           "InvalidBucketName",
		Description:    fmt.Sprintf("The bucket name %.80q ", name) + fmt.Sprintf(format, args...) + ".",
		HTTPStatusCode: http.StatusBadRequest,
	}
}

// CheckKey refuses keys that are not distinct as files, with the reason. See the package's limits.
func CheckKey(key string) error {
	switch {
	case key == "":
		return badKey(key, "is empty")
	case len(key) > maxKeyBytes:
		return s3err.GetKeyTooLongErr(int64(len(key)), maxKeyBytes)
	case !utf8.ValidString(key):
		return badKey(key, "is not UTF-8")
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return badKey(key, "has a control character")
	}
	for i, part := range strings.Split(strings.TrimSuffix(key, "/"), "/") {
		switch {
		case part == "":
			return badKey(key, "has an empty part; this store does not tell a//b from a/b")
		case part == "." || part == "..":
			return badKey(key, "has a part %q", part)
		case len(part) > maxPartBytes:
			return badKey(key, "has a part of %d bytes; at most %d are possible", len(part), maxPartBytes)
		case i == 0 && (part == posix.MetaTmpDir):
			return badKey(key, "starts with %s, which this store keeps for itself", posix.MetaTmpDir)
		}
	}
	return nil
}

func badKey(key, format string, args ...any) error {
	return s3err.APIError{
		Code:           "InvalidArgument",
		Description:    fmt.Sprintf("The key %.80q ", key) + fmt.Sprintf(format, args...) + ".",
		HTTPStatusCode: http.StatusBadRequest,
	}
}
