package https

import (
	"context"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/apex"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// Verbs is what people do by the buttons of pages; package api has them, and decides who may.
type Verbs interface {
	// Start returns when the VM runs.
	Start(ctx context.Context, by gateway.Principal, vm gateway.VM) error
	apex.Answers
}

// startShown is how long the button waits for a failure before it shows that the VM starts.
const startShown = 5 * time.Second

// mayStart reports whether a visitor has a button that starts the VM: who may manage it, and who may open
// the page of one that requests wake.
func (s *Server) mayStart(who access.Visitor, vm gateway.VM) bool {
	return who.Person != 0 && (s.Verbs != nil && s.policy.Manages(who, vm) || s.Wake != nil && vm.WakeOnRequest)
}

// startVM starts the VM of the route, as the button of its page asks, and then leads to where the visitor
// wanted to go. Only a page of the VM itself can ask.
func (s *Server) startVM(w http.ResponseWriter, r *http.Request, rt names.Route) {
	who, _, ok := s.admit(w, r, rt)
	if !ok {
		return
	}
	leave, ok := s.count(w, r, rt, who)
	if !ok {
		return
	}
	defer leave()
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	path := browser.LocalPath(r.PostFormValue("path"))
	switch {
	case !s.mayStart(who, rt.VM):
		s.notAllowed(w, r, rt, who)
		return
	case rt.VM.Desired == gateway.Running, s.Verbs == nil, !s.policy.Manages(who, rt.VM): // the request for the page wakes it
		browser.Redirect(w, http.StatusSeeOther, path)
		return
	}
	if err := s.waker.startBy(r.Context(), rt.VM, func(ctx context.Context) error { return s.Verbs.Start(ctx, who.Person, rt.VM) }); err != nil {
		s.pages.Render(w, r, pages.NotStarted(rt, browser.Status(gateway.KindOf(err)), err, path))
		return
	}
	s.pages.Render(w, r, pages.Started(rt, path))
}

// maxFormBytes limits the form of the button.
const maxFormBytes = 8 << 10

// startBy starts a VM that a person asks for, and holds the requests for it meanwhile. It returns an error
// that comes soon, and nil for a start that takes longer or has succeeded.
func (k *waker) startBy(ctx context.Context, vm gateway.VM, start func(context.Context) error) error {
	w, ok := k.begin(vm.ID)
	if !ok {
		return errStarting
	}
	started := k.starting.DoChan(vm.ID.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(k.base, wakeTime)
		defer cancel()
		return nil, start(ctx)
	})
	failed := make(chan error, 1)
	go func() {
		defer k.end(vm.ID, w)
		err := (<-started).Err
		if err != nil {
			k.log.With(gateway.LogVM(vm.Identity)).Warn("VM was not started", "err", err)
		}
		failed <- err
	}()
	soon := time.NewTimer(startShown)
	defer soon.Stop()
	select {
	case err := <-failed:
		return err
	case <-soon.C:
		return nil
	case <-ctx.Done(): // the start goes on
		return nil
	}
}
