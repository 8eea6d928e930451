package storage

import (
	"errors"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/storage/sigv4"
)

// caller is the VM that a request is from.
type caller struct {
	vm    gateway.Identity
	chain *sigv4.Chain // not nil: the signature is verified, and this verifies the chunks of the body
}

// identify returns the VM in whose namespace a request works. The signature of an issued key is
// verified, wherever the request comes from, and the key must be that VM's own. Any other key is a
// dummy: then the tap alone decides.
//
// An attacker who makes an app in the VM fetch a URL must not act as the VM. So requests are
// refused that are unsigned, that are presigned with a dummy, or that came through a proxy.
func (s *Server) identify(r *http.Request) (caller, error) {
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		if r.Header.Get(name) != "" {
			return caller{}, errDenied("The request has come through a proxy (it has a %s header).", name)
		}
	}
	tap := gateway.VMFrom(r.Context())
	auth, err := sigv4.Parse(r)
	if err != nil {
		return caller{}, signatureError(err)
	}
	if !gateway.IsAccessKey(auth.AccessKey) {
		switch {
		case !tap.Known():
			return caller{}, errUnknownKey()
		case auth.Presigned:
			return caller{}, errDenied("A presigned URL needs the VM's own credentials (from the instance metadata), not a made-up key.")
		}
		return caller{vm: tap}, nil
	}
	vm, secret, err := s.keyring.Check(auth.AccessKey, time.Now())
	if err != nil {
		return caller{}, errCredentials(err)
	}
	if tap.Known() && tap.ID != vm.ID {
		return caller{}, errUnknownKey()
	}
	chain, err := auth.Verify(r, secret, time.Now())
	if err != nil {
		return caller{}, signatureError(err)
	}
	return caller{vm: vm, chain: chain}, nil
}

// signatureError is the one table from errors of a signature to S3's answers.
func signatureError(err error) error {
	switch {
	case errors.Is(err, sigv4.ErrUnsigned):
		return errDenied("The request is not signed. Any S3 tool signs, and inside a VM any key will do.")
	case errors.Is(err, sigv4.ErrMechanism):
		return errorf(http.StatusBadRequest, "InvalidRequest", "Please use AWS4-HMAC-SHA256 (signature version 4).")
	case errors.Is(err, sigv4.ErrMismatch):
		return errorf(http.StatusForbidden, "SignatureDoesNotMatch", "The signature does not match the request.")
	case errors.Is(err, sigv4.ErrSkewed):
		return errorf(http.StatusForbidden, "RequestTimeTooSkewed", "The request's time is too far from the host's. Set the clock.")
	case errors.Is(err, sigv4.ErrExpired):
		return errDenied("Request has expired")
	case errors.Is(err, sigv4.ErrChunked):
		return errorf(http.StatusBadRequest, "IncompleteBody", "The request's body: %v.", err)
	}
	return errorf(http.StatusBadRequest, "AuthorizationHeaderMalformed", "The request: %v.", err)
}
