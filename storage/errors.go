package storage

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/versity/versitygw/s3err"

	"lodge/gateway"
)

// errorf makes an S3 error: the code is for programs, the text for people.
func errorf(status int, code, format string, args ...any) error {
	return s3err.APIError{Code: code, Description: fmt.Sprintf(format, args...), HTTPStatusCode: status}
}

func errDenied(format string, args ...any) error {
	return errorf(http.StatusForbidden, "AccessDenied", format, args...)
}

func errUnknownKey() error {
	return errorf(http.StatusForbidden, "InvalidAccessKeyId", "The access key is not one of this VM's.")
}

func errGone() error { return errDenied("The VM is being removed.") }

// errCredentials is for issued keys that are no longer valid. SDKs fetch new ones on ExpiredToken.
func errCredentials(err error) error {
	return errorf(http.StatusForbidden, "ExpiredToken", "The credentials are not valid any more (%v). Fetch new ones from the instance metadata.", err)
}

func errSlowDown() error {
	return errorf(http.StatusServiceUnavailable, "SlowDown", "This VM has too many requests under way. Please reduce your request rate.")
}

func errNoLength(header string) error {
	return errorf(http.StatusLengthRequired, "MissingContentLength", "You must provide the %s HTTP header.", header)
}

func errNotImplemented(format string, args ...any) error {
	return errorf(http.StatusNotImplemented, "NotImplemented", format, args...)
}

// answer writes an S3 error. Other errors go to the log, and become InternalError.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, err error) {
	known, ok := err.(s3err.S3Error) //nolint:errorlint // ours are never wrapped; whatever else comes is internal
	if !ok {
		s.log.Error("s3 request failed", slog.String("method", r.Method), slog.Any("err", err))
		known = s3err.GetAPIError(s3err.ErrInternalError)
	}
	body := known.XMLBody(gateway.NewID().String(), "")
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(known.StatusCode())
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may have left
	}
}
