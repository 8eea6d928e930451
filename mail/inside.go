package mail

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"lodge/gateway"
)

const (
	maxListed       = 1000 // messages or events in an answer to a VM
	defaultListed   = 100
	maxRedelivery   = 1 << 20 // bytes of JSON
	maxInsidePerVM  = 4       // requests at once; those that send have their own limit
	maxInside       = 64
	insidePath      = "/lodge/v1/mail"
	insideWriteTime = 10 * time.Minute // for a message to go out
)

// newInside makes the handler of what a VM can do with its own mail, in JSON but for a message:
//
//	POST /lodge/v1/mail              sends a message, see submit.Policy.ServeHTTP
//	GET  /lodge/v1/mail              lists messages, the newest first
//	GET  /lodge/v1/mail/search?q=    lists those that fit all terms q, see parseTerms
//	GET  /lodge/v1/mail/log          lists what became of mail, the newest event first
//	GET  /lodge/v1/mail/queue        lists the letters that wait to leave the host, the oldest first
//	GET  /lodge/v1/mail/<queue id>   is the message as it is stored
//	POST /lodge/v1/mail/redeliver    takes a gateway.MailRedelivery
//
// Lists have ?limit=, from 1 to 1000 and 100 by default. Errors are {"error"}, with a status by their kind.
func (s *Server) newInside() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(insidePath, s.outbound) // it refuses other methods
	mux.Handle("GET "+insidePath, s.own(s.guestList))
	mux.Handle("GET "+insidePath+"/search", s.own(s.guestSearch))
	mux.Handle("GET "+insidePath+"/log", s.own(s.guestLog))
	mux.Handle("GET "+insidePath+"/queue", s.own(s.guestQueue))
	mux.Handle("GET "+insidePath+"/{queue_id}", s.own(s.guestMessage))
	mux.Handle("POST "+insidePath+"/redeliver", s.own(s.guestRedeliver))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		down := s.down
		if !down {
			s.calls.Add(1)
		}
		s.mu.Unlock()
		if down {
			w.Header().Set("Retry-After", "1")
			writeJSON(w, http.StatusServiceUnavailable, guestError{"lodged is stopping, try again"})
			return
		}
		defer s.calls.Done()
		mux.ServeHTTP(w, r)
	})
}

// awaitCalls waits for the requests that are under way, until ctx ends.
func (s *Server) awaitCalls(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.calls.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// own calls answer for the VM of the request's context, and writes what it returns.
func (s *Server) own(answer func(w http.ResponseWriter, r *http.Request, id gateway.ID) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vm := gateway.VMFrom(r.Context())
		leave, ok := s.requests.Enter(vm.ID)
		if !ok {
			writeJSON(w, http.StatusTooManyRequests, guestError{"too many requests at once, try again later"})
			return
		}
		defer leave()
		v, err := answer(w, r, vm.ID)
		switch known, isKnown := errors.AsType[*gateway.Error](err); {
		case err == nil && v != nil:
			writeJSON(w, http.StatusOK, v)
		case err == nil:
		case isKnown && gateway.KindOf(err) != gateway.KindInternal:
			writeJSON(w, insideStatus(gateway.KindOf(err)), guestError{known.Error()})
		default:
			s.config.Logger.Error("mail not shown to its VM", gateway.LogVM(vm), "path", r.URL.Path, "err", err)
			writeJSON(w, http.StatusInternalServerError, guestError{"internal error, see lodged's log"})
		}
	})
}

type guestError struct {
	Error string `json:"error"`
}

// insideStatus is the table from kinds of errors to HTTP statuses.
func insideStatus(kind gateway.Kind) int {
	switch kind {
	case gateway.KindInvalid:
		return http.StatusBadRequest
	case gateway.KindNotFound:
		return http.StatusNotFound
	case gateway.KindConflict:
		return http.StatusConflict
	case gateway.KindNoSpace:
		return http.StatusInsufficientStorage
	default:
		return http.StatusServiceUnavailable
	}
}

// writeJSON writes an answer. A write error means that the guest has closed the connection.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func listedOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultListed, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxListed {
		return 0, gateway.Invalid("not a limit: %.20q; it is 1 to %d", text, maxListed)
	}
	return n, nil
}

func (s *Server) guestList(_ http.ResponseWriter, r *http.Request, id gateway.ID) (any, error) {
	n, err := listedOf(r)
	if err != nil {
		return nil, err
	}
	return s.List(r.Context(), id, n)
}

func (s *Server) guestSearch(_ http.ResponseWriter, r *http.Request, id gateway.ID) (any, error) {
	n, err := listedOf(r)
	if err != nil {
		return nil, err
	}
	return s.Search(r.Context(), id, r.URL.Query()["q"], n)
}

func (s *Server) guestLog(_ http.ResponseWriter, r *http.Request, id gateway.ID) (any, error) {
	n, err := listedOf(r)
	if err != nil {
		return nil, err
	}
	return s.MailLog(r.Context(), id, n)
}

func (s *Server) guestQueue(_ http.ResponseWriter, r *http.Request, id gateway.ID) (any, error) {
	n, err := listedOf(r)
	if err != nil {
		return nil, err
	}
	if _, err := s.box(id); err != nil { // the zero ID would be all VMs
		return nil, err
	}
	return s.Outgoing(r.Context(), id, n)
}

func (s *Server) guestMessage(w http.ResponseWriter, r *http.Request, id gateway.ID) (any, error) {
	message, err := s.Open(r.Context(), id, r.PathValue("queue_id"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = message.Close() }()                                              // only read
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(insideWriteTime)) // where it is not supported, the tap's limits remain
	w.Header().Set("Content-Type", "message/rfc822")
	_, _ = io.Copy(w, message) // the guest has closed the connection, or sees that it is cut
	return nil, nil            //nolint:nilnil // it is answered
}

func (s *Server) guestRedeliver(w http.ResponseWriter, r *http.Request, id gateway.ID) (any, error) {
	var in gateway.MailRedelivery
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRedelivery))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, gateway.Invalid("the request is not as documented: %v", err)
	}
	if err := in.Check(); err != nil {
		return nil, err
	}
	return s.Redeliver(r.Context(), id, in)
}
