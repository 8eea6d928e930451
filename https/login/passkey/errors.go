package passkey

import (
	"errors"
	"net/http"

	"lodge/gateway"
	"lodge/https/login/browser"
)

// errCopy is the cause of errCloned.
var errCopy = errors.New("the signature counter did not grow")

func errCloned() error {
	return gateway.Errorf(gateway.KindDenied, "this passkey was refused: another copy of it seems to be in use").Because(errCopy).
		WithHint("Log in another way, remove the passkey from your account, and register a new one.")
}

func errStranger() error {
	return gateway.Errorf(gateway.KindDenied, "you are not logged in").WithHint("Log in, then try again.")
}

func errStale() error {
	return gateway.Errorf(gateway.KindDenied, "a passkey can be added soon after a login alone").WithHint("Load this page again, and log in again.")
}

func errMalformed(err error) error {
	return gateway.Invalid("the body is not what a browser sends for a passkey").Because(err)
}

func errRefused(err error) error {
	return gateway.Errorf(gateway.KindDenied, "the passkey was refused").Because(err).WithHint("Try again, or log in another way.")
}

func errUnknown() error {
	return gateway.Errorf(gateway.KindDenied, "this passkey is not known here").
		WithHint("It may have been removed. Log in another way, and register a new one.")
}

// fail answers with an error. A refusal is logged with its cause at level debug, as strangers can have
// many.
func (h *Handler) fail(w http.ResponseWriter, err error) {
	if gateway.KindOf(err) == gateway.KindInternal {
		h.Logger.Error("passkey request failed", "err", err)
	} else {
		h.Logger.Debug("passkey request refused", "err", errors.Join(err, errors.Unwrap(err)))
	}
	browser.WriteError(w, err)
}
