package browser

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"lodge/gateway"
)

// maxJSONBytes limits what a page's script sends.
const maxJSONBytes = 64 << 10

// ReadJSON returns the body of a script's POST. It is refused (KindDenied) from a page elsewhere, and
// (KindInvalid) if it is not JSON: forms, which need no CORS preflight, cannot send that.
func ReadJSON(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if !SameOrigin(r) {
		return nil, ErrElsewhere()
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return nil, gateway.Invalid("the body is not application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJSONBytes))
	if err != nil {
		return nil, gateway.Invalid("the body could not be read").Because(err).WithHint("It may have %d KiB.", maxJSONBytes>>10)
	}
	return body, nil
}

// ErrElsewhere is the error for a request that a page elsewhere has sent.
func ErrElsewhere() error {
	return gateway.Errorf(gateway.KindDenied, "cross-site request blocked").WithHint("Open the page itself, and try again.")
}

// WriteJSON answers with a value.
func WriteJSON(w http.ResponseWriter, status int, value any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client has gone
}

// WriteError answers with an error, in the words meant for a person; what is a fault of the host has
// no detail.
func WriteError(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*gateway.Error](err)
	if !ok || e.Kind == gateway.KindInternal {
		e = gateway.Errorf(gateway.KindInternal, "something went wrong").WithHint("The host's log has the cause.")
	}
	if e.Kind == gateway.KindUnavailable {
		w.Header().Set("Retry-After", "60")
	}
	WriteJSON(w, Status(e.Kind), e)
}

// Status is the HTTP status for a kind of error.
func Status(kind gateway.Kind) int {
	switch kind {
	case gateway.KindInvalid:
		return http.StatusBadRequest
	case gateway.KindNotFound:
		return http.StatusNotFound
	case gateway.KindDenied:
		return http.StatusForbidden
	case gateway.KindTaken, gateway.KindConflict:
		return http.StatusConflict
	case gateway.KindNoSpace:
		return http.StatusInsufficientStorage
	case gateway.KindUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
