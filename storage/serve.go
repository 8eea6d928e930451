package storage

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/versity/versitygw/s3err"

	"lodge/gateway"
)

// serve handles one request, and logs it if AccessLog is set.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	a := &access{ResponseWriter: w}
	if s.accessLog {
		begin := time.Now()
		defer func() { a.log(s.log, r, time.Since(begin)) }() // after a panic, too: the client has left
	}
	if err := s.carryOut(a, r); err != nil {
		s.answer(a, r, err)
	}
}

// carryOut identifies the caller and carries out the request. It returns an error only if nothing
// has been answered yet.
func (s *Server) carryOut(w *access, r *http.Request) error {
	who, err := s.identify(r)
	if err != nil {
		return err
	}
	w.vm = who.vm
	ctx, leave, err := s.tenants.enter(r.Context(), who.vm.ID, r.Method == http.MethodPost && r.ContentLength > longList)
	if err != nil {
		return err
	}
	defer leave()
	client, release := newClientConn(ctx, w)
	defer release()
	in := &body{src: r.Body, client: client}
	r = r.WithContext(ctx)
	r.Body = in
	if err := refuse(r, who.vm); err != nil {
		return err
	}
	t, err := parseTarget(r)
	if err != nil {
		return err
	}
	w.target = t
	if r.Method == http.MethodPut && r.URL.Query().Has("acl") {
		return setACL(r, who.vm) // an answer without a status is 200
	}
	return s.forward(w, r, in, who, t)
}

// forward passes a request, whose body is in, to the engine, and its answer back. It returns an
// error only if nothing has been answered yet.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, in *body, who caller, t target) error {
	out, err := rewrite(r, in, t, who)
	if err != nil {
		return err
	}
	end := func() {}
	if t.makesObject(r, r.URL.Query()) {
		if end, err = s.objects.BeginWrite(who.vm, t.bucket); err != nil {
			return err
		}
	}
	res, err := s.objects.Do(out.WithContext(r.Context()), who.vm)
	end()
	if failed := in.failure(); failed != nil {
		if err == nil {
			_ = res.Body.Close() // the engine's answer to an incomplete body
		}
		return failed
	}
	if err != nil {
		return s.engineError(r.Context(), who, t, err)
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or no longer needed
	s.relay(w, in.client, res)
	return nil
}

// engineError is for an engine that did not answer.
func (s *Server) engineError(ctx context.Context, who caller, t target, err error) error {
	if ctx.Err() == nil {
		s.log.Error("object engine did not answer", gateway.LogVM(who.vm), slog.String("bucket", t.bucket),
			slog.String("object", t.key), slog.Any("err", err))
	}
	return errorf(http.StatusServiceUnavailable, "ServiceUnavailable", "The object store does not answer. Try again.")
}

// relay sends the engine's answer, for as long as the client accepts it.
func (s *Server) relay(w http.ResponseWriter, to clientConn, res *http.Response) {
	for name, values := range res.Header {
		switch lower := strings.ToLower(name); {
		case name == "Connection", name == "Keep-Alive", name == "Transfer-Encoding", name == "Server", name == "Date":
		case strings.HasPrefix(lower, "x-amz-"): // in lower case, as S3 does: boto3 copies the names of metadata
			w.Header()[lower] = values[:1] // versitygw sends its request ids twice
		default:
			w.Header()[name] = values
		}
	}
	w.WriteHeader(res.StatusCode)
	_, err := io.Copy(&patientWriter{w, to}, res.Body)
	to.hasWritten()
	if err != nil {
		panic(http.ErrAbortHandler) // an incomplete answer must not look complete
	}
}

// patientWriter writes an answer while its client accepts it.
type patientWriter struct {
	io.Writer
	client clientConn
}

// Write implements io.Writer.
func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.client.writes(); err != nil {
		return 0, err
	}
	return p.Writer.Write(b)
}

func isS3(err error) bool {
	_, ok := err.(s3err.S3Error) //nolint:errorlint // S3 errors are never wrapped here
	return ok
}
