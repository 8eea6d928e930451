package storage

import (
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/storage/s3"
	"lodge/storage/sigv4"
)

// identify returns the VM in whose namespace a request works. The signature of an issued key is
// verified, wherever the request comes from, and the key must be that VM's own. Any other key is a
// dummy: then the tap alone decides.
//
// An attacker who makes an app in the VM fetch a URL must not act as the VM. So requests are
// refused that are unsigned, that are presigned with a dummy, or that came through a proxy.
//
// A browser's form is signed in its fields, as a presigned URL is in its query.
func (s *Server) identify(r *http.Request, form *s3.Form) (s3.Caller, error) {
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		if r.Header.Get(name) != "" {
			return s3.Caller{}, errDenied("The request has come through a proxy (it has a %s header).", name)
		}
	}
	tap := gateway.VMFrom(r.Context())
	auth, err := parseAuth(r, form)
	if err != nil {
		return s3.Caller{}, s3.SignatureError(err)
	}
	if !gateway.IsAccessKey(auth.AccessKey) {
		switch {
		case !tap.Known():
			return s3.Caller{}, errUnknownKey()
		case auth.Presigned:
			return s3.Caller{}, errDenied("A presigned URL needs the VM's own credentials (from the instance metadata), not a made-up key.")
		}
		return s3.Caller{VM: tap, Inside: true}, nil
	}
	key, err := s.keyring.Check(auth.AccessKey, time.Now())
	if err != nil {
		return s3.Caller{}, errCredentials(err)
	}
	if key.Outside || tap.Known() && tap.ID != key.VM.ID {
		return s3.Caller{}, errUnknownKey()
	}
	who, err := verified(r, form, auth, key)
	who.Inside = tap.Known()
	return who, err
}

// verified is the caller of a request, or of a form, that key has signed.
func verified(r *http.Request, form *s3.Form, auth sigv4.Auth, key gateway.S3Key) (who s3.Caller, err error) {
	if form != nil {
		err = auth.VerifyPolicy(form.Fields["policy"], key.Secret)
	} else {
		who.Chain, err = auth.Verify(r, key.Secret, time.Now())
	}
	if err != nil {
		return s3.Caller{}, s3.SignatureError(err)
	}
	who.VM = key.VM
	return who, nil
}

// parseAuth reads the signature of a request, or of its form.
func parseAuth(r *http.Request, form *s3.Form) (sigv4.Auth, error) {
	if form != nil {
		return sigv4.ParsePolicy(form.Fields)
	}
	return sigv4.Parse(r)
}
