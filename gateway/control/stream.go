package control

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// Event is one line of a streamed answer. The last line has VM, Image or Error, all others Progress; an answer that ends
// without one of them was cut off.
type Event struct {
	Progress *api.Progress  `json:"progress,omitempty"`
	VM       *api.VM        `json:"vm,omitempty"`
	Image    *api.Image     `json:"image,omitempty"`
	Error    *gateway.Error `json:"error,omitempty"`
}

// stalled is how long a caller may leave a line unread before it is given up: a client stopped by ^Z must not hold up the work.
const stalled = 10 * time.Second

// events writes Events, one per line, each flushed. Nothing is written before the first, so that an early error still
// gets its own status. It is safe for concurrent use.
type events struct {
	mu sync.Mutex
	w  *recorder
}

func newEvents(w http.ResponseWriter) *events {
	return &events{w: w.(*recorder)} //nolint:forcetypeassert // logged makes every ResponseWriter
}

func (e *events) send(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.w.status == 0 {
		e.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	c := http.NewResponseController(e.w)
	// These fail only when the caller is gone, and then its request's context ends the work.
	_ = c.SetWriteDeadline(time.Now().Add(stalled))
	_ = json.NewEncoder(e.w).Encode(event)
	_ = c.Flush()
	_ = c.SetWriteDeadline(time.Time{})
}

func (e *events) progress(p gateway.Progress) {
	step := api.ProgressOf(p)
	e.send(Event{Progress: &step})
}

// fail sends err as the last line, or leaves it to the status where no line was sent yet.
func (e *events) fail(err error) error {
	if e.w.status != 0 {
		e.send(Event{Error: api.ErrorOf(err)})
		e.w.sentError = true
	}
	return err
}

// end sends the result as the last line, or fails.
func (e *events) end(result Event, err error) error {
	if err != nil {
		return e.fail(err)
	}
	e.send(result)
	return nil
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) error {
	var spec gateway.Spec
	if err := decode(w, r, maxSpecBytes, &spec); err != nil {
		return err
	}
	out := newEvents(w)
	vm, err := s.as(r).New(r.Context(), spec, out.progress)
	return out.end(Event{VM: &vm}, err)
}

func (s *Server) wait(w http.ResponseWriter, r *http.Request) error {
	out := newEvents(w)
	vm, err := s.as(r).Wait(r.Context(), r.PathValue("name"), api.Condition(r.URL.Query().Get("for")), out.progress)
	return out.end(Event{VM: &vm}, err)
}

// ImageRequest is the body that builds an image. The empty name is the default image.
type ImageRequest struct {
	Name string `json:"name,omitempty"`
}

func (s *Server) buildImage(w http.ResponseWriter, r *http.Request) error {
	var in ImageRequest
	if err := decode(w, r, maxBodyBytes, &in); err != nil {
		return err
	}
	out := newEvents(w)
	built, err := s.as(r).BuildImage(r.Context(), in.Name, out.progress)
	return out.end(Event{Image: &built}, err)
}
