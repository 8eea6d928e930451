package api

import (
	"context"
	"errors"

	"lodge/gateway"
)

// ErrorOf is err as callers get it: an error for a person as it is, any other with a place where more is to be found.
func ErrorOf(err error) *gateway.Error {
	if e, ok := errors.AsType[*gateway.Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return gateway.Errorf(gateway.KindUnavailable, "lodged is stopping").WithHint("Try again when it has started.")
	}
	return gateway.Errorf(gateway.KindInternal, "%v", err).
		WithHint("This is a fault in lodged or on its host. See its log: journalctl -u lodged")
}
