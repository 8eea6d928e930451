package store

import (
	"context"
	"errors"

	"lodge/gateway"
)

// Copy makes an object with the body of another one, whose files it shares. Errors: those of Head for the
// source, and those of Put.
func (s *Store) Copy(ctx context.Context, from Key, version string, to Key, c CopyOptions) (Object, error) {
	return Object{}, errors.ErrUnsupported
}

// PartsOf returns the parts of a multipart object with numbers above after, at most most of them.
func (s *Store) PartsOf(key Key, version string, after, most int) (PartPage, error) {
	return PartPage{}, errors.ErrUnsupported
}

// NewUpload begins a multipart upload. The bucket must exist, or is made.
func (s *Store) NewUpload(key Key, o UploadOptions) (Upload, error) {
	return Upload{}, errors.ErrUnsupported
}

// PutPart stores a part, in place of one with the same number. Write's Meta and If are not used. Errors:
// ErrNoUpload, ErrPartNumber, and those of Put.
func (s *Store) PutPart(ctx context.Context, key Key, upload string, number int, w Write) (Part, error) {
	return Part{}, errors.ErrUnsupported
}

// CopyPart is PutPart with length bytes of another object from offset on; length -1 is all the rest. It
// shares the source's file where it is all of one, and copies bytes else.
func (s *Store) CopyPart(ctx context.Context, key Key, upload string, number int, from Key, version string, offset, length int64, c CopyPartOptions) (Part, error) {
	return Part{}, errors.ErrUnsupported
}

// Upload returns an upload in progress, or ErrNoUpload.
func (s *Store) Upload(key Key, upload string) (Upload, error) {
	return Upload{}, errors.ErrUnsupported
}

// Parts returns the parts of an upload with numbers above after, at most most of them.
func (s *Store) Parts(key Key, upload string, after, most int) (PartPage, error) {
	return PartPage{}, errors.ErrUnsupported
}

// Uploads returns a page of a bucket's uploads: by key, those of a key in the order of their beginning.
func (s *Store) Uploads(ctx context.Context, q Query) (UploadPage, error) {
	return UploadPage{}, errors.ErrUnsupported
}

// Complete makes an object of an upload's parts: those listed, in that order. It copies no bytes. Completed
// again, it returns the same object while that is the latest one. Errors: ErrNoUpload, ErrPart, ErrPartOrder,
// ErrPartSmall, ErrSize, and those of Put.
func (s *Store) Complete(ctx context.Context, key Key, upload string, parts []CompletedPart, c Completion) (Object, error) {
	return Object{}, errors.ErrUnsupported
}

// Abort removes an upload and its parts. ErrNoUpload.
func (s *Store) Abort(key Key, upload string) error { return errors.ErrUnsupported }

// UsageOf counts what is stored below a prefix of a bucket. It reads all of that.
func (s *Store) UsageOf(ctx context.Context, vm gateway.ID, bucket, prefix string) (Usage, error) {
	return Usage{}, errors.ErrUnsupported
}

// Remove removes all that a VM has stored. Calls for it that are in progress fail with ErrRemoved, and so do
// later ones. If the host crashes, Open completes it. It can be repeated.
func (s *Store) Remove(vm gateway.ID) error { return errors.ErrUnsupported }

// Snapshot marks this point in time of a VM's objects.
func (s *Store) Snapshot(vm gateway.ID) (Snapshot, error) { return 0, errors.ErrUnsupported }

// Restore makes a VM's buckets and objects what they were at a snapshot. Uploads are aborted. The snapshot
// stays; later ones are dropped.
func (s *Store) Restore(vm gateway.ID, at Snapshot) error { return errors.ErrUnsupported }

// Fork gives a VM that has nothing stored what another one had at a snapshot, or has now. Both share no
// record; large bodies are hard links.
func (s *Store) Fork(vm gateway.ID, at *Snapshot, to gateway.ID) error { return errors.ErrUnsupported }

// Drop ends a snapshot, and frees what only it held.
func (s *Store) Drop(vm gateway.ID, at Snapshot) error { return errors.ErrUnsupported }

// Check compares all records and files with each other, and all bodies with their checksums. It tells each
// damage. Its error says why it could not go on.
func (s *Store) Check(ctx context.Context, tell func(Damage)) error { return errors.ErrUnsupported }
