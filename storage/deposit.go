package storage

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"lodge/gateway"
	"lodge/storage/s3"
)

// Deposit stores an object for another part of the host in the name of a VM, unless there is one of that name, and
// returns once it is synced. It is a PutObject of the VM's: the bucket's policy and its default encryption, the quotas,
// and checkpoints that are being made count. A missing bucket is made. Errors: KindNoSpace over a quota or a full disk,
// KindDenied where the policy denies it, and KindUnavailable.
func (s *Server) Deposit(ctx context.Context, vm gateway.Identity, bucket, name, contentType string, body io.Reader, bytes int64) error {
	ctx, leave, err := s.admission.enter(ctx, vm.ID, atHost, false)
	if err != nil {
		return depositError(err)
	}
	defer leave()
	if err := s.objects.Readable(vm.ID); err != nil {
		return depositError(err)
	}
	to := url.URL{Scheme: "http", Host: gateway.S3Host, Path: "/" + bucket + "/" + name}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, to.String(), io.NopCloser(body))
	if err != nil {
		return gateway.Invalid("not a name for an object: %.100q", name).Because(err)
	}
	r.ContentLength = bytes
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("If-None-Match", "*")
	target, err := s3.ParseTarget(r)
	if err != nil {
		return depositError(err)
	}
	return depositError(s.objects.UnlessFailed(func() error {
		return s.protocol.Serve(nowhere{}, r, s3.Caller{VM: vm, Inside: true}, target)
	}))
}

// depositError is the one table from S3's answers to the errors of Deposit. That there is such an object is none.
func depositError(err error) error {
	if err == nil {
		return nil
	}
	known, _ := s3.AsError(err)
	kind := gateway.KindUnavailable
	switch known.Status {
	case http.StatusPreconditionFailed:
		return nil
	case http.StatusInsufficientStorage:
		kind = gateway.KindNoSpace
	case http.StatusForbidden:
		kind = gateway.KindDenied
	}
	return gateway.Errorf(kind, "%s: %s", known.Code, known.Message).Because(err)
}

// nowhere is an answer that nobody reads: what matters of a PutObject is its error.
type nowhere struct{}

// Header implements http.ResponseWriter.
func (nowhere) Header() http.Header { return http.Header{} }

// Write implements http.ResponseWriter.
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (nowhere) WriteHeader(int) {}
