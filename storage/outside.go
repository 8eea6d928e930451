package storage

import (
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/storage/s3"
)

// errOutside is the one answer to what is not for outside: it is the same whether there is such a VM.
func errOutside(why string) error { return errDenied("Access denied. %s", why) }

// splitOutside reads the name of a request outside. s3.<domain> and <vm>.s3.<domain> have the bucket in
// the path, <bucket>.<vm>.s3.<domain> in the name; vm is "" for the first.
func (s *Server) splitOutside(host string) (bucket, vm string, ok bool) {
	labels, ok := gateway.SplitHostBelow(host, s.outsideHost)
	if i := strings.LastIndexByte(labels, '.'); i >= 0 {
		return labels[:i], labels[i+1:], ok
	}
	return "", labels, ok
}

// targetOf is the subject of a request at a door.
func (s *Server) targetOf(r *http.Request, at door) (s3.Target, error) {
	if at != atOutside {
		return s3.ParseTarget(r)
	}
	bucket, _, ok := s.splitOutside(r.Host)
	if !ok {
		return s3.Target{}, errOutside("This is not a name of the S3 service.")
	}
	return s3.TargetBelow(bucket, r)
}

// identifyOutside returns the VM in whose namespace a request at a public name works: that of the key
// that has signed it. The connection identifies nobody here, not on a tap either.
//
// A key for outside is worth what its maker may do. The VM's own credentials sign forms, and presigned
// URLs of single objects (signsOutside), for others, and nothing else.
func (s *Server) identifyOutside(r *http.Request, form *s3.Form) (s3.Caller, error) {
	auth, err := parseAuth(r, form)
	if err != nil {
		return s3.Caller{}, s3.SignatureError(err)
	}
	if !gateway.IsAccessKey(auth.AccessKey) {
		return s3.Caller{}, errUnknownKey()
	}
	key, err := s.keyring.Check(auth.AccessKey, time.Now())
	if err != nil {
		return s3.Caller{}, errCredentials(err)
	}
	if _, vm, _ := s.splitOutside(r.Host); vm != "" && vm != key.VM.Name {
		return s3.Caller{}, errOutside("The access key is not one of this name's.")
	}
	if !key.Outside && form == nil {
		target, err := s.targetOf(r, atOutside)
		if err != nil {
			return s3.Caller{}, err
		}
		if !auth.Presigned || !signsOutside(r, target) {
			return s3.Caller{}, errOutside("The credentials are for use inside the VM. Make some for outside: lodge s3 creds")
		}
	}
	if key.Outside && !s.mayUse(key) {
		return s3.Caller{}, errOutside("Who made the access key may not use the VM any more.")
	}
	return verified(r, form, auth, key)
}

// mayUse reports whether the one who made a key for outside may use its VM now.
func (s *Server) mayUse(key gateway.S3Key) bool {
	m, ok := s.directory.ByID(key.VM.ID)
	return ok && s.people.Level(key.By, m).Covers(gateway.Use)
}

// preflightOutside is the caller of a browser's preflight, which is not signed: the access key in a
// presigned URL names the VM whose rules are asked for.
func (s *Server) preflightOutside(r *http.Request) (s3.Caller, error) {
	auth, err := parseAuth(r, nil)
	if err != nil || !auth.Presigned {
		return s3.Caller{}, errOutside("A preflight request is possible for a presigned URL only.")
	}
	key, err := s.keyring.Check(auth.AccessKey, time.Now())
	if _, vm, _ := s.splitOutside(r.Host); err != nil || vm != "" && vm != key.VM.Name || key.Outside && !s.mayUse(key) {
		return s3.Caller{}, errUnknownKey()
	}
	return s3.Caller{VM: key.VM}, nil
}

// signsOutside reports whether a VM's own credentials may sign a request outside, as a link for somebody:
// for one object, to read or to write it, in parts too. A copy of them is of no use for the rest.
func signsOutside(r *http.Request, t s3.Target) bool {
	if t.Key == "" || r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPut {
		return false
	}
	for name := range r.URL.Query() {
		lower := strings.ToLower(name)
		known := strings.HasPrefix(lower, "x-amz-") || strings.HasPrefix(lower, "response-") ||
			slices.Contains([]string{"versionId", "partNumber", "uploadId", "x-id"}, name)
		if !known {
			return false
		}
	}
	return true
}

// passive are the types that a browser shows without running anything in them, or in a viewer of its own
// that needs the origin.
var passive = map[string]bool{ //nolint:gochecknoglobals // a constant
	"text/plain": true, "application/json": true, "application/pdf": true,
	"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true, "image/avif": true, "image/bmp": true, "image/x-icon": true,
	"audio/mpeg": true, "audio/ogg": true, "audio/wav": true, "audio/flac": true, "audio/aac": true, "audio/mp4": true, "audio/webm": true,
	"video/mp4": true, "video/ogg": true, "video/webm": true,
}

// isolate keeps what a browser shows of an object from acting as the name that it is at: that may be the name
// of all VMs' objects. A document has an origin of its own, and no script can become a service worker. Types
// that browsers read otherwise than this program does are not passive: of a list they take the last.
func isolate(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	var kinds []string
	for name, values := range h {
		if strings.EqualFold(name, "Content-Type") {
			kinds = append(kinds, values...)
		}
	}
	if len(kinds) == 1 && !strings.Contains(kinds[0], ",") {
		if kind, _, err := mime.ParseMediaType(kinds[0]); err == nil && passive[kind] {
			return
		}
	}
	h.Set("Content-Security-Policy", "sandbox")
}
