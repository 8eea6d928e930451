package control

import (
	"context"
	"net/http"
	"strconv"

	"lodge/gateway"
	"lodge/gateway/api"
)

// StopRequest is the body of stop.
type StopRequest struct {
	Force bool `json:"force"` // end the VM without asking the guest
}

// LoginRequest is the body of login. The empty person is the caller.
type LoginRequest struct {
	Person string `json:"person,omitempty"`
}

// LoginAnswer is a link that works once.
type LoginAnswer struct {
	URL string `json:"url"`
}

// query is a verb without arguments whose answer is JSON.
func query[T any](s *Server, call func(api.Session, context.Context) (T, error)) verb {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := call(s.as(r), r.Context())
		if err != nil {
			return err
		}
		answer(w, http.StatusOK, v)
		return nil
	}
}

// named is a verb whose one argument is the VM's name, and whose answer is JSON.
func named[T any](s *Server, call func(api.Session, context.Context, string) (T, error)) verb {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := call(s.as(r), r.Context(), r.PathValue("name"))
		if err != nil {
			return err
		}
		answer(w, http.StatusOK, v)
		return nil
	}
}

// asked is a verb on a VM whose further arguments are the body, and whose answer is JSON.
func asked[In, Out any](s *Server, call func(api.Session, context.Context, string, In) (Out, error)) verb {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in In
		if err := decode(w, r, maxBodyBytes, &in); err != nil {
			return err
		}
		v, err := call(s.as(r), r.Context(), r.PathValue("name"), in)
		if err != nil {
			return err
		}
		answer(w, http.StatusOK, v)
		return nil
	}
}

func stop(s api.Session, ctx context.Context, name string, in StopRequest) (api.VM, error) { //nolint:revive // the order of method expressions
	return s.Stop(ctx, name, in.Force)
}

func login(s api.Session, ctx context.Context, name string, in LoginRequest) (LoginAnswer, error) { //nolint:revive // as above
	url, err := s.Login(ctx, name, in.Person)
	return LoginAnswer{URL: url}, err
}

// loginHost has no VM: its path has no name.
func loginHost(s api.Session, ctx context.Context, _ string, in LoginRequest) (LoginAnswer, error) { //nolint:revive // as above
	url, err := s.LoginHost(ctx, in.Person)
	return LoginAnswer{URL: url}, err
}

func (s *Server) rootPEM(w http.ResponseWriter, r *http.Request) error {
	pem, err := s.as(r).RootPEM(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, err = w.Write(pem)
	return err
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	if err := s.as(r).Remove(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) removeTemplate(w http.ResponseWriter, r *http.Request) error {
	if err := s.as(r).RemoveTemplate(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) mail(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	messages, err := s.as(r).Mail(r.Context(), r.PathValue("name"), limit)
	return answerOr(w, messages, err)
}

// limitOf returns how many entries of a list are asked for; the verb checks it.
func limitOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return api.DefaultMessages, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, gateway.Invalid("not a limit: %q", text).WithHint("A limit is a number from 1 to %d.", api.MaxMessages)
	}
	return n, nil
}

// metrics is for Prometheus, which has its own format.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.as(r).Health(r.Context()); err != nil {
		return err
	}
	s.Metrics.ServeHTTP(w, r)
	return nil
}
