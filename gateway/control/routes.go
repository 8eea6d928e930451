package control

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// A verb answers one request, or returns the error to answer with.
type verb func(w http.ResponseWriter, r *http.Request) error

type route struct {
	method, path string
	verb         verb
}

// routes is the API, one route per verb.
func (s *Server) routes() []route {
	return []route{
		{"GET", "/v1/health", query(s, api.Session.Health)},
		{"GET", "/v1/ca.pem", s.rootPEM},
		{"GET", "/v1/images", query(s, api.Session.Images)},
		{"POST", "/v1/images", s.buildImage},
		{"GET", "/v1/vms", query(s, api.Session.List)},
		{"POST", "/v1/vms", s.create},
		{"GET", "/v1/vms/{name}", named(s, api.Session.Show)},
		{"DELETE", "/v1/vms/{name}", s.remove},
		{"POST", "/v1/vms/{name}/start", named(s, api.Session.Start)},
		{"POST", "/v1/vms/{name}/stop", asked(s, stop)},
		{"POST", "/v1/vms/{name}/restart", named(s, api.Session.Restart)},
		{"GET", "/v1/vms/{name}/wait", s.wait},
		{"GET", "/v1/vms/{name}/console", s.console},
		{"GET", "/v1/vms/{name}/log", s.log},
		{"GET", "/v1/vms/{name}/ssh", named(s, api.Session.SSH)},
		{"PUT", "/v1/vms/{name}/ports/{port}", s.share},
		{"POST", "/v1/vms/{name}/login", asked(s, login)},
		{"GET", "/v1/vms/{name}/mail", s.mail},
		{"GET", "/v1/vms/{name}/mail/{queue_id}", s.message},
		{"POST", "/v1/vms/{name}/credentials", named(s, api.Session.Credentials)},
	}
}

// Handler answers every verb, for the caller that the request's context carries (WithCaller).
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, route := range s.routes() {
		mux.Handle(route.method+" "+route.path, s.logged(route.verb))
		allowed[route.path] = append(allowed[route.path], route.method)
	}
	for path, methods := range allowed {
		mux.Handle(path, s.logged(wrongMethod(methods)))
	}
	mux.Handle("/", s.logged(func(http.ResponseWriter, *http.Request) error {
		return gateway.Errorf(gateway.KindNotFound, "no such verb").WithHint("lodge and lodged may be of different versions: lodge version")
	}))
	return mux
}

func wrongMethod(methods []string) verb {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		answer(w, http.StatusMethodNotAllowed, gateway.Invalid("%s is not possible here, only %s", r.Method, strings.Join(methods, " and ")))
		return nil
	}
}

// status is the one table from kinds of errors to HTTP statuses (RFC 9110 §15).
func status(kind gateway.Kind) int {
	switch kind {
	case gateway.KindInvalid:
		return http.StatusBadRequest
	case gateway.KindNotFound:
		return http.StatusNotFound
	case gateway.KindTaken, gateway.KindConflict:
		return http.StatusConflict
	case gateway.KindDenied:
		return http.StatusForbidden
	case gateway.KindNoSpace:
		return http.StatusInsufficientStorage
	case gateway.KindUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// logged runs a verb, answers with its error, and writes the one log line of the request. Paths are logged by their
// pattern, answers not at all: they hold links and keys.
func (s *Server) logged(v verb) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w}
		err := v(rec, r)
		cut := err != nil && rec.status != 0 && !rec.told
		if err != nil && rec.status == 0 {
			answer(rec, status(api.ErrorOf(err).Kind), api.ErrorOf(err))
		}
		args := []any{"method", cmp.Or(r.Pattern, r.Method), "status", rec.status, "bytes", rec.bytes, "duration", time.Since(began)}
		if name := r.PathValue("name"); name != "" {
			args = append(args, "vm", name)
		}
		if err != nil {
			args = append(args, "err", withCause(err))
		}
		s.Logger.InfoContext(r.Context(), "control request served", args...)
		if cut {
			panic(http.ErrAbortHandler) // the answer had begun: only cutting it off tells the caller that it is not whole
		}
	})
}

// withCause is err as the log wants it: people-facing errors keep their cause to themselves.
func withCause(err error) error {
	if e, ok := errors.AsType[*gateway.Error](err); ok && e.Err != nil {
		return fmt.Errorf("%w: %w", err, e.Err)
	}
	return err
}
