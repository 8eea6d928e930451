package https

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/names"
)

// errRevoked is the cause of a request's context that ended because the request is no longer allowed.
var errRevoked = errors.New("the visitor may no longer open the page")

// errDraining is the cause of a tunnel's context that ended with the server.
var errDraining = errors.New("the server is shutting down")

// sessionEndEvery is how often live looks for sessions that have ended.
const sessionEndEvery = 500 * time.Millisecond

// live has the requests under way to VMs, with what allowed each. Streams and WebSockets last long
// after the decision that let them through: a change of the VM or of the people, or the end of a login or
// of a session, ends them.
type live struct {
	changes atomic.Uint64 // calls of endWhere
	mu      sync.Mutex
	byVM    map[gateway.ID]map[*liveRequest]struct{}
	drain   bool // no tunnel lasts
}

type liveRequest struct {
	name  names.Name // of the route, without the VM's record, which is large
	vm    gateway.Identity
	who   access.Visitor
	proof login.Proof
	level gateway.Level // of a bucket: what the request may do there
	end   context.CancelCauseFunc

	tunnel bool // a WebSocket of HTTP/2
}

func newLive() *live { return &live{byVM: map[gateway.ID]map[*liveRequest]struct{}{}} }

// enter adds a request. Its context ends with its permission; leave removes it. A change of which the
// decision knew nothing may have missed it: compare changes with its value from before the decision.
func (l *live) enter(r *http.Request, rt names.Route, who access.Visitor, proof login.Proof, level gateway.Level) (_ context.Context, leave func()) {
	ctx, end := context.WithCancelCause(r.Context())
	q := &liveRequest{name: rt.Name, vm: rt.VM.Identity, who: who, proof: proof, level: level, end: end, tunnel: isTunnel(r)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.drain && q.tunnel {
		end(errDraining)
	}
	if l.byVM[rt.VM.ID] == nil {
		l.byVM[rt.VM.ID] = map[*liveRequest]struct{}{}
	}
	l.byVM[rt.VM.ID][q] = struct{}{}
	return ctx, func() {
		end(nil)
		l.remove(q)
	}
}

func (l *live) remove(q *liveRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byVM[q.vm.ID], q)
	if len(l.byVM[q.vm.ID]) == 0 {
		delete(l.byVM, q.vm.ID)
	}
}

// endWhere ends the requests to a VM, or for the zero ID to any, for which revoked returns true.
func (l *live) endWhere(vm gateway.ID, revoked func(*liveRequest) bool) {
	l.changes.Add(1) // before the search: a request that it does not find has the new value
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, requests := range l.byVM {
		if vm != id && vm != (gateway.ID{}) {
			continue
		}
		for q := range requests {
			if revoked(q) {
				q.end(errRevoked)
			}
		}
	}
}

// watch ends requests with their sessions, until ctx ends. A timer for each request would cost more.
func (l *live) watch(ctx context.Context) {
	ticks := time.NewTicker(sessionEndEvery)
	defer ticks.Stop()
	for {
		select {
		case now := <-ticks.C:
			l.endSessions(now)
		case <-ctx.Done():
			return
		}
	}
}

func (l *live) endSessions(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, requests := range l.byVM {
		for q := range requests {
			if until := q.proof.Until; !until.IsZero() && now.After(until) {
				q.end(errRevoked)
			}
		}
	}
}

// endTunnels ends the tunnels, now and from now on: http.Server.Shutdown would wait for them.
func (l *live) endTunnels() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drain = true
	for _, all := range l.byVM {
		for q := range all {
			if q.tunnel {
				q.end(errDraining)
			}
		}
	}
}

// endLogin ends what was opened with a login or another secret, on public ports too: the app there knows
// the person.
func (l *live) endLogin(vm gateway.ID, id login.ID) {
	l.endWhere(vm, func(q *liveRequest) bool { return q.proof.RestsOn(id) })
}

// vmChanged ends what a change of a VM no longer allows. A VM that is to be stopped ends its
// connections itself.
func (s *Server) vmChanged(old, _ gateway.VM) {
	s.cutPassed()
	s.live.endWhere(old.ID, func(q *liveRequest) bool { return !s.allows(q.name, q.vm, q.who, q.level) })
}

// peopleChanged ends what a change of people and teams no longer allows. Who is removed loses what is
// open on public ports too (the app there knows the person), and then what is kept of them.
func (s *Server) peopleChanged() {
	s.live.endWhere(gateway.ID{}, func(q *liveRequest) bool {
		return q.who.Person != 0 && !s.known(q.who.Person) || q.who.Token != 0 && !s.known(q.who.Token) || !s.allows(q.name, q.vm, q.who, q.level)
	})
	if slices.ContainsFunc(s.persons, func(p people.Person) bool { return !s.known(p.ID) }) {
		s.removeOthers()
		return
	}
	s.persons = s.People.All()
}

// removeOthers removes what is kept of persons who are removed. What an error leaves opens nothing, and is
// removed at the next start.
func (s *Server) removeOthers() {
	s.persons = s.People.All()
	s.login.RemoveOthers(s.known)
	err := s.Kept.RemoveOthers(context.Background(), s.known)
	gone := func(q gateway.AccessRequest) bool { return q.Proven() && !s.known(q.Person) }
	if err := errors.Join(err, s.Requests.Remove(context.Background(), gone)); err != nil {
		s.Logger.Warn("what is kept of a removed person was not removed", "err", err)
	}
}

func (s *Server) known(person gateway.Principal) bool {
	_, ok := s.People.Person(person)
	return ok
}

// allows reports whether a name leads to the same port of the same VM now, which who may open,
// or to the same bucket, with which who may do what level is.
func (s *Server) allows(name names.Name, vm gateway.Identity, who access.Visitor, level gateway.Level) bool {
	var inside gateway.Identity
	if name.Guests {
		inside = vm
	}
	now, ok := s.zone.Route(name.Host, inside, s.Directory)
	return ok && now.VM.ID == vm.ID && now.Port == name.Port && s.policy.Opens(who, now) &&
		(name.Bucket == "" || s.policy.BucketLevel(who, now).Covers(level))
}
