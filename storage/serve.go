package storage

import (
	"io"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/storage/s3"
)

// serving returns what handles a request that comes in at a door, and logs it if AccessLog is set.
func (s *Server) serving(at door) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { s.serveAt(w, r, at) }
}

func (s *Server) serveAt(w http.ResponseWriter, r *http.Request, at door) {
	a := &access{ResponseWriter: w, isolated: at == atOutside}
	if s.accessLog {
		begin := time.Now()
		defer func() { a.log(s.log, r, time.Since(begin)) }() // after a panic, too: the client has left
	}
	if err := s.carryOut(a, r, at); err != nil {
		s.answer(a, r, err)
	}
}

// carryOut identifies the caller and carries out the request. It returns an error only if nothing
// has been answered yet.
func (s *Server) carryOut(w *access, r *http.Request, at door) error {
	if err := s3.CheckHeaders(r.Header); err != nil { // before anything looks at them
		return err
	}
	body := &patientReader{ReadCloser: r.Body}
	r = r.WithContext(r.Context()) // a copy: net/http must find its own body, to count what of it is unread
	r.Body = body
	if at == atOutside && unsigned(r) && r.Method != http.MethodOptions {
		return s.carryOutPublic(w, r)
	}
	form, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	who, err := s.caller(r, form, at)
	if err != nil {
		return err
	}
	if w.vm = who.VM; who.Inside {
		who.Source = s.sources(who.VM)
	}
	use, leaveGrant, err := s.byGrant(r, who)
	if err != nil {
		return err
	}
	defer leaveGrant()
	if use != nil {
		r = r.WithContext(use.ctx)
	}
	r, out, leave, err := s.admit(w, r, who.VM.ID, at, mayBeLong(r))
	if err != nil {
		return err
	}
	defer leave()
	if use != nil {
		who, w.target = use.caller(who), use.target
	} else if w.target, err = s.targetOf(r, at); err != nil {
		return err
	}
	switch {
	case form != nil:
		return s.protocol.Post(out, r, who, w.target, form)
	case r.Method == http.MethodOptions:
		return s.protocol.Preflight(out, r, who, w.target)
	}
	return s.protocol.Serve(out, r, who, w.target)
}

// admit gives a request one of the VM's places until leave, and its client the time that it may
// take. The request that it returns ends with the VM.
func (s *Server) admit(w *access, r *http.Request, vm gateway.ID, at door, long bool) (_ *http.Request, _ *patientWriter, leave func(), err error) {
	ctx, leaveAdmission, err := s.admission.enter(r.Context(), vm, at, long)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := s.objects.Readable(vm); err != nil {
		leaveAdmission()
		return nil, nil, nil, err
	}
	client, release := newClientConn(ctx, w)
	if body, ok := r.Body.(*patientReader); ok {
		body.client = &client
	}
	return r.WithContext(ctx), &patientWriter{w, client}, func() {
		client.hasWritten()
		release()
		leaveAdmission()
	}, nil
}

// mayBeLong reports whether the body of a request may be a long list. A chunked one has no length
// that can be relied on.
func mayBeLong(r *http.Request) bool {
	return r.Method == http.MethodPost && (r.ContentLength < 0 || r.ContentLength > longList)
}

// caller is the VM that a request is from. A browser's preflight has no signature: the tap alone shows
// whose bucket is meant.
func (s *Server) caller(r *http.Request, form *s3.Form, at door) (s3.Caller, error) {
	switch {
	case at == atOutside && r.Method == http.MethodOptions:
		return s.preflightOutside(r)
	case at == atOutside:
		return s.identifyOutside(r, form)
	case r.Method != http.MethodOptions:
		who, err := s.identify(r, form)
		who.Host = at == atHost && !who.Inside
		return who, err
	}
	tap := gateway.VMFrom(r.Context())
	if !tap.Known() {
		return s3.Caller{}, errDenied("A preflight request is possible at a VM's own address only.")
	}
	return s3.Caller{VM: tap, Inside: true}, nil
}

// patientReader reads a body while its client sends it.
type patientReader struct {
	io.ReadCloser
	client *clientConn // nil until the request is admitted
}

// Read implements io.Reader.
func (p *patientReader) Read(b []byte) (n int, err error) {
	if p.client == nil {
		return p.ReadCloser.Read(b)
	}
	if err = p.client.reads(); err == nil {
		n, err = p.ReadCloser.Read(b)
	}
	if err != nil {
		p.client.hasRead()
	}
	return n, err
}

// patientWriter writes an answer while its client accepts it.
type patientWriter struct {
	*access
	client clientConn
}

// Write implements io.Writer.
func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.client.writes(); err != nil {
		return 0, err
	}
	return p.access.Write(b)
}

// maxPiece is how much of a file is sent under one deadline.
const maxPiece = 128 << 10

// ReadFrom implements io.ReaderFrom: net/http sends a file by sendfile(2), piece by piece, since the
// client is given time for each.
func (p *patientWriter) ReadFrom(src io.Reader) (total int64, err error) {
	rest, limited := src.(*io.LimitedReader)
	for err == nil {
		piece := &io.LimitedReader{R: src, N: maxPiece}
		if limited {
			piece.R, piece.N = rest.R, min(maxPiece, rest.N) // a limit of a limit would hide the file
		}
		if piece.N <= 0 {
			break
		}
		if err = p.client.writes(); err != nil {
			break
		}
		var n int64
		n, err = p.access.ReadFrom(piece)
		total += n
		if limited {
			rest.N -= n
		}
		if n == 0 {
			break
		}
	}
	return total, err
}

// formWait is how long the fields of a form may take, before its sender is known.
const formWait = 60 * time.Second

// readForm reads the fields of a browser's upload, nil for any other request.
func (s *Server) readForm(w http.ResponseWriter, r *http.Request) (*s3.Form, error) {
	if !s3.IsForm(r) {
		return nil, nil
	}
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(formWait)) // only tests have connections without deadlines
	return s3.ReadForm(r)
}
