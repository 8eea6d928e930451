package gateway

import (
	"errors"
	"fmt"
)

// Kind is the class of an error, by what the caller can do about it. Each protocol has one table
// from Kind to its replies.
type Kind string

// The kinds of errors.
const (
	KindInvalid     Kind = "invalid"     // the request is wrong; a retry fails again
	KindNotFound    Kind = "not-found"   // no such VM, bucket, message
	KindTaken       Kind = "taken"       // the name is in use
	KindDenied      Kind = "denied"      // the caller is known, but not allowed
	KindConflict    Kind = "conflict"    // the present state does not allow it; a retry may succeed
	KindNoSpace     Kind = "no-space"    // the host's disk or a quota is full
	KindUnavailable Kind = "unavailable" // a required part does not answer; try again later
	KindInternal    Kind = "internal"    // a fault of Lodge; the cause is in the log
)

// Error is an error for a person: what is wrong (lower case, no full stop), and what to do next.
type Error struct {
	Kind Kind   `json:"kind"`
	Msg  string `json:"error"`
	Hint string `json:"hint,omitempty"` // a sentence or a command to run; may be empty
	Err  error  `json:"-"`              // the cause, for the log; may be nil
}

// Error implements error. It leaves the hint out.
func (e *Error) Error() string { return e.Msg }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WithHint returns a copy of e with a hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Because returns a copy of e with a cause.
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
	return Errorf(KindNotFound, "no VM named %q", name).WithHint("lodge ls lists the VMs.")
}

// KindOf returns the kind of the first Error in err's chain; KindInternal without one.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindInternal
}
