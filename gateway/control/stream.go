package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"lodge/gateway"
)

// stalled is how long a caller may leave a line unread before it is given up: a client stopped by ^Z must not hold up the work.
const stalled = 10 * time.Second

// events writes Events, one per line, each flushed. Nothing is written before the first, so that an early error still
// gets its own status. It is safe for concurrent use.
type events struct {
	mu    sync.Mutex
	w     *recorder
	began time.Time
}

func newEvents(w http.ResponseWriter) *events {
	return &events{w: w.(*recorder), began: time.Now()} //nolint:forcetypeassert // logged makes every ResponseWriter
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
	e.send(Event{Progress: e.timed(p)})
}

// timed gives a step that has no time its own: since whatever the last step that had one counted from.
func (e *events) timed(p gateway.Progress) *gateway.Progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.Elapsed == 0 {
		p.Elapsed = time.Since(e.began)
	} else {
		e.began = time.Now().Add(-p.Elapsed)
	}
	return &p
}

// fail says err as the last line, or leaves it to the status when there was no line yet.
func (e *events) fail(err error) error {
	if e.w.status != 0 {
		e.send(Event{Error: wireError(err)})
		e.w.told = true
	}
	return err
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) error {
	var spec gateway.Spec
	if err := decode(w, r, maxSpecBytes, &spec); err != nil {
		return err
	}
	if err := gateway.CheckName(spec.Name); err != nil {
		return err
	}
	if len(spec.UserData) > gateway.MaxUserDataBytes {
		return gateway.Invalid("the user data is %d bytes long; at most %d are possible", len(spec.UserData), gateway.MaxUserDataBytes)
	}
	out := newEvents(w)
	m, err := s.Machines.New(r.Context(), spec, out.progress)
	if err != nil {
		return out.fail(err)
	}
	out.send(Event{VM: s.info(r, m)})
	return nil
}

func (s *Server) wait(w http.ResponseWriter, r *http.Request) error {
	until := Milestone(r.URL.Query().Get("for"))
	if until != "" && until != Userspace && until != Service {
		return gateway.Invalid("cannot wait for %q", until).WithHint("Wait for userspace or for service.")
	}
	m, err := s.vm(r)
	if err != nil {
		return err
	}
	out := newEvents(w)
	if err := s.Observer.Wait(r.Context(), m.ID, out.progress); err != nil {
		return out.fail(err)
	}
	if until == Service {
		if err := s.awaitService(r.Context(), m.ID, out.progress); err != nil {
			return out.fail(err)
		}
	}
	if m, err = s.vm(r); err != nil {
		return out.fail(err)
	}
	out.send(Event{VM: s.info(r, m)})
	return nil
}

// awaitService returns when something answers at the VM's plain name.
func (s *Server) awaitService(ctx context.Context, id gateway.ID, progress func(gateway.Progress)) error {
	progress(gateway.Progress{Phase: string(Service), Text: "waiting for something to listen"})
	tick := time.NewTicker(250 * time.Millisecond) // a probe is cheap, and nobody tells the host that a guest listens
	defer tick.Stop()
	for {
		m, ok := s.Directory.ByID(id)
		if !ok || m.Desired != gateway.Running {
			return gateway.Errorf(gateway.KindConflict, "the VM was stopped or removed meanwhile").WithHint("lodge ls shows what there is.")
		}
		if port, ok := s.Web.Probe(ctx, m); ok {
			progress(gateway.Progress{Phase: string(Service), Text: fmt.Sprintf("port %d answers", port)})
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
