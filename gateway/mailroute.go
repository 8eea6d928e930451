package gateway

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MailRoute is the way of a VM's mail into it.
type MailRoute struct {
	Scheme string // "maildir", "smtp", "lmtp", "http" or "s3"
	Port   uint16 // of the VM's own address; of "maildir" that of its sshd; 0 of "s3"
	Path   string // of "http": the path, and the query if any; of "s3": what the names of objects begin with
	Bucket string // of "s3": one of the VM's own
}

// MailRouteAuto is the route of a VM that has none set. It is the Maildir, whatever the VM listens on: a
// server there may be no mailbox of the VM, and until it is up mail would go another way.
const MailRouteAuto = "auto"

const maxRoutePathBytes = 500

// ParseMailRoute reads "auto", "maildir", "smtp", "lmtp", "http://PORT/PATH" or "s3://BUCKET/PREFIX"; the empty text is
// "auto". Anything else is KindInvalid.
func ParseMailRoute(text string) (MailRoute, error) {
	switch text {
	case "", MailRouteAuto, "maildir":
		return MailRoute{Scheme: "maildir", Port: 22}, nil
	case "smtp":
		return MailRoute{Scheme: "smtp", Port: 25}, nil
	case "lmtp":
		return MailRoute{Scheme: "lmtp", Port: 24}, nil
	}
	bad := Invalid("not a route for mail: %.100q", text).
		WithHint("Routes are auto, maildir, smtp, lmtp, http://PORT/PATH such as http://8080/mail, and s3://BUCKET/PREFIX such as s3://mail/.")
	if rest, ok := strings.CutPrefix(text, "s3://"); ok {
		bucket, prefix, _ := strings.Cut(rest, "/")
		if !isBucketName(bucket) || len(prefix) > maxRoutePathBytes || strings.ContainsFunc(prefix, isNoURLByte) {
			return MailRoute{}, bad
		}
		return MailRoute{Scheme: "s3", Bucket: bucket, Path: prefix}, nil
	}
	rest, ok := strings.CutPrefix(text, "http://")
	if !ok || len(rest) > maxRoutePathBytes {
		return MailRoute{}, bad
	}
	digits, _, _ := strings.Cut(rest, "/")
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || port == 0 {
		return MailRoute{}, bad
	}
	u, err := url.ParseRequestURI("/" + strings.TrimPrefix(rest[len(digits):], "/"))
	if err != nil || strings.ContainsFunc(text, isNoURLByte) {
		return MailRoute{}, bad
	}
	return MailRoute{Scheme: "http", Port: uint16(port), Path: u.RequestURI()}, nil
}

// String is the text that ParseMailRoute reads.
func (r MailRoute) String() string {
	switch r.Scheme {
	case "http":
		return fmt.Sprintf("http://%d%s", r.Port, r.Path)
	case "s3":
		return "s3://" + r.Bucket + "/" + r.Path
	}
	return r.Scheme
}

// isBucketName reports whether S3 clients can make a bucket of a name.
func isBucketName(name string) bool {
	_, notAddress := netip.ParseAddr(name)
	return len(name) >= 3 && len(name) <= 63 && isPlainLocal(name) && !strings.Contains(name, "_") && notAddress != nil
}

// isNoURLByte reports whether a character is in no path of a URL, or begins a fragment.
func isNoURLByte(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("#\\\"<>^`{|}", c) }
