// Package sigv4 parses, verifies and makes AWS Signature Version 4 for S3: the Authorization
// header, presigned queries and the chunk signatures of aws-chunked bodies (AWS: "Authenticating
// Requests (AWS Signature Version 4)").
//
// Parse returns what a request claims; Verify checks it against a secret; Reader decodes an
// aws-chunked body. This package never maps a key to a VM.
package sigv4

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The errors of a signature. Parse and Verify wrap these with the detail, and those of a presigned query in ErrQuery, too.
var (
	ErrUnsigned  = errors.New("the request is not signed")
	ErrMechanism = errors.New("the signature is not of version 4 (AWS4-HMAC-SHA256)")
	ErrHeader    = errors.New("the Authorization header is of no known type")
	ErrMalformed = errors.New("the signature is malformed")
	ErrDate      = errors.New("the request has no valid X-Amz-Date or Date header")
	ErrNotSigned = errors.New("the request has headers that must be signed")
	ErrQuery     = errors.New("the signature is in the query")
	ErrMismatch  = errors.New("the signature does not match")
	ErrSkewed    = errors.New("the request's time is too far from the host's")
	ErrExpired   = errors.New("the presigned URL has expired")
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	dayFormat  = "20060102"
	service    = "s3"
	terminal   = "aws4_request"
	maxSkew    = 15 * time.Minute
	maxExpires = 7 * 24 * time.Hour

	// Unsigned is the payload hash of a body that the signature does not cover.
	Unsigned = "UNSIGNED-PAYLOAD"

	dateHeader    = "X-Amz-Date"
	payloadHeader = "X-Amz-Content-Sha256"
)

// Auth is what a request claims about its signer; only Verify proves it.
type Auth struct {
	AccessKey     string
	Day           string // yyyymmdd of the credential scope
	Region        string // any
	SignedHeaders []string
	Signature     string        // 64 hex digits
	Time          time.Time     // of signing
	Presigned     bool          // in the query, not in a header
	Expires       time.Duration // of a presigned URL
}

// Parse reads the signature of r from its header or its query. Errors: ErrUnsigned, ErrMechanism,
// ErrMalformed.
func Parse(r *http.Request) (Auth, error) {
	header := r.Header.Get("Authorization")
	query := r.URL.Query()
	switch {
	case header != "" && query.Has("X-Amz-Signature"):
		return Auth{}, fmt.Errorf("%w: signed twice, in the header and in the query", ErrMalformed)
	case header != "":
		return parseHeader(header, r.Header)
	case query.Has("X-Amz-Algorithm") || query.Has("X-Amz-Signature") || query.Has("X-Amz-Credential"):
		a, err := parseQuery(query)
		return a, a.inQuery(err)
	case query.Has("AWSAccessKeyId") || query.Has("Signature"):
		return Auth{}, ErrMechanism
	}
	return Auth{}, ErrUnsigned
}

func parseHeader(header string, h http.Header) (Auth, error) {
	kind, rest, ok := strings.Cut(strings.ReplaceAll(header, "\t", " "), " ")
	switch {
	case kind == algorithm && ok:
	case kind == "AWS": // version 2
		return Auth{}, ErrMechanism
	default:
		return Auth{}, ErrHeader
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := parts[name]; !ok || twice {
			return Auth{}, fmt.Errorf("%w: Authorization has %q", ErrMalformed, part)
		}
		parts[name] = value
	}
	date, err := headerTime(h)
	if err != nil {
		return Auth{}, err
	}
	return newAuth(parts["Credential"], parts["SignedHeaders"], parts["Signature"], date)
}

// headerTime is X-Amz-Date, or Date where that is missing.
func headerTime(h http.Header) (time.Time, error) {
	if v := h.Get(dateHeader); v != "" {
		t, err := time.Parse(timeFormat, v)
		if err != nil {
			return time.Time{}, fmt.Errorf("%w: X-Amz-Date is %q", ErrDate, v)
		}
		return t, nil
	}
	t, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}, ErrDate
	}
	return t.UTC(), nil
}

func parseQuery(q url.Values) (Auth, error) {
	if q.Get("X-Amz-Algorithm") != algorithm {
		return Auth{Presigned: true}, ErrMechanism
	}
	date, err := time.Parse(timeFormat, q.Get(dateHeader))
	if err != nil {
		return Auth{Presigned: true}, fmt.Errorf("%w: X-Amz-Date is %q", ErrMalformed, q.Get(dateHeader))
	}
	seconds, err := strconv.ParseInt(q.Get("X-Amz-Expires"), 10, 32)
	expires := time.Duration(seconds) * time.Second
	if err != nil || expires < 0 || expires > maxExpires {
		return Auth{Presigned: true}, fmt.Errorf("%w: X-Amz-Expires must be 0 to %d seconds", ErrMalformed, int(maxExpires.Seconds()))
	}
	a, err := newAuth(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), date)
	a.Presigned, a.Expires = true, expires
	return a, err
}

func newAuth(credential, signedHeaders, signature string, date time.Time) (Auth, error) {
	// The access key itself may contain a slash, so the scope is split off at the end.
	scope := strings.Split(credential, "/")
	n := len(scope)
	if n < 5 || scope[n-2] != service || scope[n-1] != terminal || len(scope[n-4]) != len(dayFormat) {
		return Auth{}, fmt.Errorf("%w: the credential is not <key>/<day>/<region>/s3/aws4_request", ErrMalformed)
	}
	a := Auth{
		AccessKey:     strings.Join(scope[:n-4], "/"),
		Day:           scope[n-4],
		Region:        scope[n-3],
		SignedHeaders: strings.Split(signedHeaders, ";"),
		Signature:     signature,
		Time:          date,
	}
	switch {
	case a.AccessKey == "":
		return Auth{}, fmt.Errorf("%w: no access key", ErrMalformed)
	case len(a.Signature) != 64:
		return Auth{}, fmt.Errorf("%w: the signature has %d characters instead of 64", ErrMalformed, len(a.Signature))
	case signedHeaders == "" || signedHeaders != strings.ToLower(signedHeaders):
		return Auth{}, fmt.Errorf("%w: no list of signed headers in lower case", ErrMalformed)
	}
	for i, name := range a.SignedHeaders[1:] { // a header that is named twice is in the canonical request twice
		if name <= a.SignedHeaders[i] {
			return Auth{}, fmt.Errorf("%w: the signed headers are not in ascending order, each once", ErrMalformed)
		}
	}
	return a, nil
}

// inQuery wraps an error of a presigned request.
func (a Auth) inQuery(err error) error {
	if a.Presigned && err != nil {
		return fmt.Errorf("%w: %w", ErrQuery, err)
	}
	return err
}

// scope is the credential scope.
func (a Auth) scope() string { return a.Day + "/" + a.Region + "/" + service + "/" + terminal }
