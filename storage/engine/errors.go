package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/versity/versitygw/s3err"

	"lodge/gateway/durable"
)

// fail turns an error of versitygw into the one for the client, without paths of the host. An error
// that is not S3's goes to the log and becomes InternalError.
func (b *backend) fail(op string, p place, err error) error {
	if err == nil {
		return nil
	}
	var bucket s3err.BucketError
	var known s3err.S3Error
	switch {
	case errors.As(err, &bucket):
		bucket.BucketName = p.bucket
		return bucket
	case errors.As(err, &known):
		return b.explain(op, p, err, known)
	case durable.IsFull(err):
		return errFull()
	case errors.Is(err, syscall.ENAMETOOLONG):
		return s3err.GetKeyTooLongErr(int64(len(p.key)), maxKeyBytes)
	case errors.Is(err, syscall.ENOTDIR):
		return s3err.GetAPIError(s3err.ErrNoSuchKey)
	case clientLeft(err):
		return s3err.GetAPIError(s3err.ErrIncompleteBody)
	}
	return b.internal(op, p, err)
}

// explain replaces answers that presume knowledge of this engine's files.
func (b *backend) explain(op string, p place, err error, known s3err.S3Error) error {
	base := known.BaseError()
	_, bare := err.(s3err.APIError) //nolint:errorlint // whether it is wrapped is the question: only attributes' errors are
	switch base.Code {
	case "InsufficientStorage", "QuotaExceeded":
		if !bare && b.hasSpace() {
			return errMetadata()
		}
		return errFull()
	case "ObjectParentIsFile":
		return errNesting("a part of the key before a slash is itself an object")
	case "ExistingObjectIsDirectory":
		if fi, statErr := os.Stat(p.object()); statErr == nil && fi.IsDir() {
			return errNesting("other keys start with this key and a slash")
		}
		if !b.hasSpace() {
			return errFull()
		}
		return b.internal(op, p, err) // versitygw's answer to every failed rename
	}
	return known
}

func (b *backend) internal(op string, p place, err error) error {
	b.log.Error("object store failed", slog.String("op", op), slog.String("vm_id", p.id.String()),
		slog.String("bucket", p.bucket), slog.String("object", p.key), slog.Any("err", err))
	return s3err.GetAPIError(s3err.ErrInternalError)
}

func clientLeft(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) ||
		errors.Is(err, syscall.ECONNRESET) || strings.Contains(err.Error(), "unexpected EOF")
}

// hasSpace distinguishes a full disk from an attribute that does not fit beside its file: both are
// ENOSPC.
func (b *backend) hasSpace() bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(b.dir, &st); err != nil {
		return false
	}
	return st.Bavail > 16 && (st.Files == 0 || st.Ffree > 16)
}

// errFull has status 507: SDKs repeat after 500, 502, 503 and 504, which would not help here.
func errFull() error {
	return s3err.APIError{
		Code: "InsufficientStorage",
		Description: "The host has no space left for objects; nothing was stored. " +
			"Delete objects, or ask the host's operator to make room.",
		HTTPStatusCode: http.StatusInsufficientStorage,
	}
}

func errMetadata() error {
	return s3err.APIError{
		Code: "MetadataTooLarge",
		Description: "The object's metadata and tags do not fit beside it; on this host's file system they share " +
			"about 3.5 KiB. Nothing was stored.",
		HTTPStatusCode: http.StatusBadRequest,
	}
}

func errNesting(why string) error {
	return s3err.APIError{
		Code: "InvalidArgument",
		Description: "The key cannot be stored because " + why + "; this store cannot keep both x and x/y. " +
			"Choose another key.",
		HTTPStatusCode: http.StatusConflict,
	}
}

func notImplemented(what string) error {
	return s3err.APIError{Code: "NotImplemented", Description: what, HTTPStatusCode: http.StatusNotImplemented}
}
