package storage

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/netip"

	"lodge/gateway"
	"lodge/storage/s3"
	"lodge/storage/sigv4"
)

// Logins knows the people at the names of buckets, <bucket>.<vm>.s3.<domain>, by the sessions and
// links that browsers have there. It never answers for what another site's page sends.
type Logins interface {
	// EnterBucket returns what the one who sends a request may do with the bucket of its host name:
	// gateway.View to list and to read, gateway.Use also to write. The context ends with that;
	// leave is called after the request.
	EnterBucket(r *http.Request) (ctx context.Context, level gateway.Level, leave func())
	// TurnAwayFromBucket answers a browser's page load that opens nothing. It is false for all
	// else, which it does not answer. The answer must be the same whether there is such a bucket.
	TurnAwayFromBucket(w http.ResponseWriter, r *http.Request) bool
}

// unsigned reports whether nobody claims to have signed a request. A browser's form is signed in
// its fields, but for that of a listing.
func unsigned(r *http.Request) bool {
	_, err := sigv4.Parse(r)
	return errors.Is(err, sigv4.ErrUnsigned) && (!s3.IsForm(r) || r.URL.Query().Has("upload"))
}

// visit is an unsigned request at a public name, about a bucket that shows something to who sends
// it.
type visit struct {
	vm     gateway.VM
	target s3.Target
	named  bool // the host names the bucket
	site   bool // the request is for a page of the bucket's website
	level  gateway.Level
}

// carryOutPublic answers a request that nobody has signed, at a public name. Every refusal is the
// same answer, with the same headers, so that nothing shows which VMs, buckets and keys there are.
func (s *Server) carryOutPublic(w *access, r *http.Request) error {
	before := w.Header().Clone()
	isolated := w.isolated
	err := s.servePublic(w, r)
	if err == nil {
		return nil
	}
	w.isolated, w.private = isolated, false
	if known, ok := s3.AsError(err); !ok || known.Status != http.StatusForbidden {
		return err
	}
	clear(w.Header())
	maps.Copy(w.Header(), before)
	w.target = s3.Target{}
	if s.logins != nil {
		if w.isolated = false; s.logins.TurnAwayFromBucket(w, r) {
			return nil
		}
		w.isolated = isolated
	}
	return s3.ErrNotPublic()
}

func (s *Server) servePublic(w *access, r *http.Request) error {
	v, ok := s.visitOf(r)
	if !ok {
		return s3.ErrNotPublic()
	}
	face := s.protocol.Face(v.vm.ID, v.target.Bucket)
	r, leave := s.login(&v, r, face)
	defer leave()
	if !face.Public && v.level == gateway.NoLevel {
		return s3.ErrNotPublic() // before the request takes one of the VM's places
	}
	v.site = face.Site && v.named && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	if v.site && r.Header.Get("Service-Worker") != "" {
		return s3.ErrNotPublic() // it would outlive the website
	}
	w.vm, w.target = v.vm.Identity, v.target
	r, out, leaveVM, err := s.admitVisit(w, r, v)
	if err != nil {
		return err
	}
	defer leaveVM()
	return s.show(w, out, r, v)
}

// admitVisit is admit. Strangers have places of their own, so that a crowd of them takes none of
// who has a key or a login, and one of them has few.
func (s *Server) admitVisit(w *access, r *http.Request, v visit) (_ *http.Request, _ *patientWriter, leave func(), err error) {
	if v.byLogin() {
		return s.admit(w, r, v.vm.ID, atOutside, mayBeLong(r))
	}
	leavePeer, ok := func() {}, true
	if peer := peerOf(r); !peer.Loopback() { // a tunnel or a proxy ends there, with all who come by it
		leavePeer, ok = s.admission.peers.Enter(peer)
	}
	if !ok {
		return nil, nil, nil, errSlowDown()
	}
	r, out, leaveVM, err := s.admit(w, r, v.vm.ID, atPublic, mayBeLong(r) || v.target.Key == "" && !v.site)
	if err != nil {
		leavePeer()
		return nil, nil, nil, err
	}
	return r, out, func() { leaveVM(); leavePeer() }, nil
}

// byLogin reports whether a login, or a link, opens what is asked for. Of a public bucket it opens
// more to who may use the VM: older versions, for one.
func (v visit) byLogin() bool {
	return v.level == gateway.Use || v.level != gateway.NoLevel && v.vm.S3.Share(v.target.Bucket).Visibility != gateway.Public
}

func peerOf(r *http.Request) gateway.Peer {
	if vm := gateway.VMFrom(r.Context()); vm.Known() {
		return gateway.Peer{VM: vm.ID}
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr) // without an address: all share one
	return gateway.PeerAt(from.Addr())
}

// visitOf reads the names of an unsigned request. It is false where nothing can be open to anybody.
func (s *Server) visitOf(r *http.Request) (v visit, ok bool) {
	inName, name, ok := s.splitOutside(r.Host)
	if !ok {
		return v, false
	}
	if v.vm, ok = s.directory.ByName(name); !ok || v.vm.Desired == gateway.Removed {
		return v, false
	}
	var err error
	v.named = inName != ""
	v.target, err = s3.TargetBelow(inName, r)
	return v, err == nil && v.target.Bucket != ""
}

// login sets what the sender of a request may do with the bucket. Who may write to it sends the
// requests of a browser alone: a program has credentials. The context of the request that it
// returns ends with that, so at a bucket's name Logins alone decides, about what is public too.
func (s *Server) login(v *visit, r *http.Request, face s3.Face) (_ *http.Request, leave func()) {
	share := v.vm.S3.Share(v.target.Bucket)
	closed := share.Visibility != gateway.Public || face.Restricted // to everyone
	if s.logins == nil || !v.named {
		if !closed {
			v.level = gateway.View
		}
		return r, func() {}
	}
	ctx, level, leave := s.logins.EnterBucket(r)
	if face.Site {
		level = atWebsite(level, share)
	}
	if level != gateway.View || share.Visibility != gateway.Public || !closed {
		v.level = level
	}
	return r.WithContext(ctx), leave
}

// atWebsite is what a session is worth at a website's name. The pages' scripts send requests with
// it: they write nothing, and read no bucket that is shared with nobody.
func atWebsite(level gateway.Level, share gateway.Share) gateway.Level {
	if share.Visibility == gateway.Private || !level.Covers(gateway.View) {
		return gateway.NoLevel
	}
	return gateway.View
}

// show carries out an admitted request.
//
// A bucket with a website is one at its own name, for every unsigned GET and HEAD there: a script
// of its pages has that origin, which no other bucket, no page of a VM and no login shares. By
// path, and with a signature, there is S3 alone.
func (s *Server) show(w *access, out *patientWriter, r *http.Request, v visit) error {
	who := s3.Caller{VM: v.vm.Identity, Anonymous: v.level != gateway.Use, Reads: v.level == gateway.View}
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	w.private = v.byLogin()
	switch {
	case v.site:
		w.isolated = false
		w.Header().Add("Vary", "Service-Worker") // with it, the same page is refused
		return s.protocol.Website(out, r, who, v.target)
	case s3.IsForm(r):
		return s.upload(out, r, v, who)
	case v.named && wantsListing(r, v.target):
		q := r.URL.Query()
		page, err := s.protocol.Page(r, who, v.target.Bucket, q.Get("prefix"), q.Get("marker"))
		if err != nil {
			return err
		}
		l := newListing(v.target.Bucket, q.Get("prefix"), page)
		if v.level == gateway.Use {
			l.Upload = uploadURL(q.Get("prefix"))
		}
		return l.write(out)
	case v.level == gateway.Use && reading:
		if err := s3.CheckOverrides(r); err != nil {
			return err
		}
		return s.protocol.Serve(out, r, who, v.target)
	}
	return s.protocol.Public(out, r, who, v.target)
}

// upload stores a file from a listing's form. A browser sends Origin with each form: without it, or
// from another site (see Logins), a form of somebody else's page would act for its visitor.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, v visit, who s3.Caller) error {
	if v.level != gateway.Use || !v.named || r.Header.Get("Origin") == "" || v.target.Key != "" {
		return s3.ErrNotPublic()
	}
	form, err := s3.ReadForm(r)
	if err != nil {
		return err
	}
	prefix := r.URL.Query().Get("prefix")
	if _, err := s.protocol.Upload(w, r, who, v.target.Bucket, prefix, form); err != nil {
		return err
	}
	w.Header().Set("Location", folderURL(prefix))
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
