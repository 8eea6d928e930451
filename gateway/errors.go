package gateway

import (
	"errors"
	"fmt"
)

// Kind sorts errors by what the caller can do about them. Each protocol has one table from Kind to its own replies.
type Kind string

// The kinds of errors.
const (
	KindInvalid     Kind = "invalid"     // the request is wrong; the same again will fail again
	KindNotFound    Kind = "not-found"   // no such VM, bucket, message
	KindTaken       Kind = "taken"       // the name is in use
	KindDenied      Kind = "denied"      // known, but not allowed
	KindConflict    Kind = "conflict"    // not now: the VM is in the wrong state for it
	KindNoSpace     Kind = "no-space"    // the host's disk or a quota is full
	KindUnavailable Kind = "unavailable" // a part that is needed does not answer; try again later
	KindInternal    Kind = "internal"    // ours; the cause is in the log
)

// Error is an error for a person: what is wrong (lower case, no full stop) and what to do next.
type Error struct {
	Kind Kind   `json:"kind"`
	Msg  string `json:"error"`
	Hint string `json:"hint,omitempty"` // a whole sentence or a command to run; may be empty
	Err  error  `json:"-"`              // the cause, for the log; may be nil
}

// Error implements error. The hint is not part of it.
func (e *Error) Error() string { return e.Msg }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// WithHint returns a copy of e that says what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Because returns a copy of e with its cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Invalid makes a KindInvalid error.
func Invalid(format string, args ...any) *Error { return Errorf(KindInvalid, format, args...) }

// Errorf makes an error of any kind.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// NotFound is the error for a VM that does not exist.
func NotFound(name string) *Error {
	return Errorf(KindNotFound, "no VM named %q", name).WithHint("lodge ls shows the VMs there are.")
}

// KindOf returns the kind of err: KindInternal when nothing in its chain says otherwise.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindInternal
}
