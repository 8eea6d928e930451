package storage

import (
	"log/slog"
	"net/http"

	"lodge/storage/s3"
)

func errDenied(format string, args ...any) error {
	return s3.Errorf(http.StatusForbidden, "AccessDenied", format, args...)
}

func errUnknownKey() error {
	return s3.Errorf(http.StatusForbidden, "InvalidAccessKeyId", "The access key is not one of this VM's.")
}

func errGone() error { return errDenied("The VM is being removed.") }

// errCredentials is for issued keys that are no longer valid. SDKs fetch new ones on ExpiredToken.
func errCredentials(err error) error {
	return s3.Errorf(http.StatusForbidden, "ExpiredToken", "The credentials are not valid any more (%v). Fetch new ones from the instance metadata.", err)
}

func errClosed() error {
	return s3.Errorf(http.StatusServiceUnavailable, "ServiceUnavailable", "The host's daemon is stopping. Try again.")
}

func errSlowDown() error {
	return s3.Errorf(http.StatusServiceUnavailable, "SlowDown", "This VM has too many requests under way. Please reduce your request rate.")
}

// answer writes an S3 error. The cause of an internal one goes to the log.
func (s *Server) answer(w *access, r *http.Request, err error) {
	if _, known := s3.AsError(err); !known {
		s.log.Error("s3 request failed", slog.String("method", r.Method), slog.Any("err", err))
	}
	s3.WriteError(w, r, w.target, err)
}
