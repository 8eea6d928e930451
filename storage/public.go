package storage

import (
	"errors"
	"maps"
	"net/http"

	"lodge/gateway"
	"lodge/storage/s3"
	"lodge/storage/sigv4"
)

// unsigned reports whether nobody claims to have signed a request. A browser's form is signed in its fields.
func unsigned(r *http.Request) bool {
	_, err := sigv4.Parse(r)
	return errors.Is(err, sigv4.ErrUnsigned) && !s3.IsForm(r)
}

// public is what an unsigned request at a public name is about: a bucket that shows something to anybody.
type public struct {
	vm     gateway.VM
	target s3.Target
	site   bool // the request is for a page of the bucket's website
}

// carryOutPublic answers a request that nobody has signed, at a public name. Every refusal is the same answer,
// with the same headers, so that nothing shows which VMs, buckets and keys there are.
func (s *Server) carryOutPublic(w *access, r *http.Request) error {
	before := w.Header().Clone()
	err := s.servePublic(w, r)
	if known, ok := s3.AsError(err); err != nil && ok && known.Status == http.StatusForbidden {
		clear(w.Header())
		maps.Copy(w.Header(), before)
		w.target = s3.Target{}
		err = s3.ErrNotPublic()
	}
	w.isolated = w.isolated || err != nil
	return err
}

func (s *Server) servePublic(w *access, r *http.Request) error {
	p, ok := s.publicAt(r)
	if !ok {
		return s3.ErrNotPublic()
	}
	w.vm, w.target = p.vm.Identity, p.target
	r, out, leave, err := s.admit(w, r, p.vm.ID, atOutside)
	if err != nil {
		return err
	}
	defer leave()
	who := s3.Caller{VM: p.vm.Identity}
	if !p.site {
		return s.protocol.Public(out, r, who, p.target)
	}
	w.isolated = false
	return s.protocol.Website(out, r, who, p.target)
}

// publicAt finds the bucket of an unsigned request. It is false where nothing can be open to anybody, before
// the request takes one of the VM's places.
//
// A bucket with a website is one at its own name, for every unsigned GET and HEAD there: a script of its
// pages has that origin, which no other bucket, no page of a VM and no login shares. By path, and with a signature, there
// is S3 alone. A service worker would outlive the website, so its script is refused.
func (s *Server) publicAt(r *http.Request) (p public, ok bool) {
	inName, name, ok := s.splitOutside(r.Host)
	if !ok {
		return p, false
	}
	if p.vm, ok = s.directory.ByName(name); !ok || p.vm.Desired == gateway.Removed {
		return p, false
	}
	var err error
	if p.target, err = s3.TargetBelow(inName, r); err != nil || p.target.Bucket == "" {
		return p, false
	}
	face := s.protocol.Face(p.vm.ID, p.target.Bucket)
	p.site = face.Site && inName != "" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	return p, face.Public && (!p.site || r.Header.Get("Service-Worker") == "")
}
