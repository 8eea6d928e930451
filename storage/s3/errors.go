package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"

	"lodge/gateway"
	"lodge/storage/sigv4"
	"lodge/storage/store"
)

// Error is an answer of S3's: the code is for programs, the message for people.
type Error struct {
	Status  int
	Code    string
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Errorf makes an S3 error.
func Errorf(status int, code, format string, args ...any) error {
	return &Error{status, code, fmt.Sprintf(format, args...)}
}

func badRequest(code, format string, args ...any) error {
	return Errorf(http.StatusBadRequest, code, format, args...)
}

func invalidArgument(format string, args ...any) error {
	return badRequest("InvalidArgument", format, args...)
}

func invalidRequest(format string, args ...any) error {
	return badRequest("InvalidRequest", format, args...)
}

func notImplemented(format string, args ...any) error {
	return Errorf(http.StatusNotImplemented, "NotImplemented", format, args...)
}

func denied(format string, args ...any) error {
	return Errorf(http.StatusForbidden, "AccessDenied", format, args...)
}

func errNoLength(header string) error {
	return Errorf(http.StatusLengthRequired, "MissingContentLength", "You must provide the %s HTTP header.", header)
}

// answerOf is one line of the table from the store's errors to S3's.
type answerOf struct {
	err     error
	status  int
	code    string
	message string
}

// answers is the table from the store's errors to S3's. Status 507 is for what a repetition does not
// cure: SDKs repeat after 500, 502, 503 and 504.
func answers() []answerOf {
	return []answerOf{
		{store.ErrNoBucket, 404, "NoSuchBucket", "The specified bucket does not exist."},
		{store.ErrBucketExists, 409, "BucketAlreadyOwnedByYou", "The bucket exists already, and is yours."},
		{store.ErrBucketNotEmpty, 409, "BucketNotEmpty", "The bucket you tried to delete is not empty."},
		{store.ErrTooManyBuckets, 400, "TooManyBuckets", "The VM has 1,000 buckets, which is the most. Delete some of them."},
		{store.ErrNoKey, 404, "NoSuchKey", "The specified key does not exist."},
		{store.ErrDeleted, 404, "NoSuchKey", "The specified key does not exist: its latest version is a delete marker."},
		{store.ErrNoVersion, 404, "NoSuchVersion", "The specified version does not exist."},
		{store.ErrPrecondition, 412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold."},
		{store.ErrDigest, 400, "BadDigest", "The Content-MD5 that you specified did not match what the host received."},
		{store.ErrLocked, 403, "AccessDenied", "Access Denied because object protected by object lock."},
		{store.ErrNoUpload, 404, "NoSuchUpload", "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."},
		{store.ErrTooManyUploads, 400, "TooManyUploads", "The VM has 10,000 multipart uploads in progress. Complete or abort some of them."},
		{store.ErrPart, 400, "InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."},
		{store.ErrPartOrder, 400, "InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number."},
		{store.ErrPartNumber, 400, "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive."},
		{store.ErrPartSmall, 400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size"},
		{store.ErrFull, 507, "InsufficientStorage", "The host has no space left for objects; nothing was stored. " +
			"Delete objects, or ask the host's operator to make room."},
		{store.ErrSize, 400, "IncompleteBody", "The body does not have the length that the request announces."},
		{store.ErrTooLarge, 400, "MetadataTooLarge", "The metadata or the configuration is too large."},
		{store.ErrRemoved, 403, "AccessDenied", "The VM is being removed."},
		{store.ErrUnfinished, 503, "ServiceUnavailable", "A rollback of the VM's objects has not ended; nothing was changed. " +
			"Try again. If that does not help, the host's operator can repeat the rollback."},
		{store.ErrHeld, 503, "SlowDown", "A checkpoint of the VM is being made or restored. Try again."},
		{context.Canceled, 400, "IncompleteBody", "The request ended before its body."},
	}
}

// AsError returns the S3 answer to an error; false if it is internal, so that the cause belongs in
// the log alone.
func AsError(err error) (*Error, bool) {
	if known, ok := errors.AsType[*Error](err); ok {
		return known, true
	}
	if errors.Is(err, store.ErrQuota) {
		return &Error{507, "QuotaExceeded", fmt.Sprintf("Nothing was stored: %v.", err)}, true
	}
	if errors.Is(err, store.ErrName) {
		return &Error{http.StatusBadRequest, "InvalidArgument", fmt.Sprintf("The name: %v.", err)}, true
	}
	for _, a := range answers() {
		if errors.Is(err, a.err) {
			return &Error{a.status, a.code, a.message}, true
		}
	}
	return &Error{http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again."}, false
}

// SignatureError is the one table from errors of a signature to S3's answers.
func SignatureError(err error) error {
	switch {
	case errors.Is(err, sigv4.ErrUnsigned):
		return denied("The request is not signed. Any S3 tool signs, and inside a VM any key will do.")
	case errors.Is(err, sigv4.ErrMechanism) && !errors.Is(err, sigv4.ErrQuery):
		return invalidRequest("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	case errors.Is(err, sigv4.ErrHeader):
		return invalidArgument("Unsupported Authorization Type")
	case errors.Is(err, sigv4.ErrDate):
		return denied("AWS authentication requires a valid Date or x-amz-date header")
	case errors.Is(err, sigv4.ErrNotSigned):
		return denied("There were headers present in the request which were not signed: %v.", err)
	case errors.Is(err, sigv4.ErrMismatch):
		return Errorf(http.StatusForbidden, "SignatureDoesNotMatch",
			"The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	case errors.Is(err, sigv4.ErrSkewed):
		return Errorf(http.StatusForbidden, "RequestTimeTooSkewed", "The request's time is too far from the host's. Set the clock.")
	case errors.Is(err, sigv4.ErrExpired):
		return denied("Request has expired")
	case errors.Is(err, sigv4.ErrChunked):
		return badRequest("IncompleteBody", "The request's body: %v.", err)
	}
	if errors.Is(err, sigv4.ErrQuery) {
		return badRequest("AuthorizationQueryParametersError", "The request: %v.", err)
	}
	return badRequest("AuthorizationHeaderMalformed", "The request: %v.", err)
}

// WriteError answers an error of a request about t, as far as that is known.
func WriteError(w http.ResponseWriter, r *http.Request, t Target, err error) {
	known, _ := AsError(err)
	body, err := xml.Marshal(struct {
		XMLName    xml.Name `xml:"Error"`
		Code       string
		Message    string
		BucketName string `xml:",omitempty"`
		Key        string `xml:",omitempty"`
		Resource   string
		RequestID  string `xml:"RequestId"`
	}{
		Code: known.Code, Message: known.Message, BucketName: t.Bucket, Key: t.Key, Resource: r.URL.Path,
		RequestID: gateway.NewID().String(),
	})
	if err != nil {
		panic(err) // strings are always XML
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(known.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append([]byte(xml.Header), body...)) // the client may have left
	}
}
