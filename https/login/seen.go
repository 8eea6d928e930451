package login

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/names"
)

// seen has the networks from which sessions of each VM were used: an IPv4 address or an IPv6 /64. They
// prove nothing about a person, but have those who used them: what these may no longer open ends there too.
// A request that can carry no session, a preflight, passes from them
// alone, so that a stranger elsewhere learns nothing of a private name.
//
// They are stored, as a hash, since the first request after a restart may be a preflight.
type seen struct {
	mu    sync.Mutex
	known map[seenKey]time.Time // until when it need not be stored again
	write sync.Mutex            // held while a record is changed
}

type network struct {
	vm  gateway.ID
	net netip.Prefix
}

// seenMemory is how long somebody is not stored again.
const seenMemory = 24 * time.Hour

func newSeen() *seen { return &seen{known: map[seenKey]time.Time{}} }

// seenKey is somebody in a network.
type seenKey struct {
	network

	person gateway.Principal
}

// maxSeenBy limits the persons who are stored with one network: the last ones.
const maxSeenBy = 32

// SeenFrom reports whether somebody who may open the route's port has used a session of its VM from the
// network of r's client.
func (h *Handler) SeenFrom(r *http.Request, rt names.Route) bool {
	n, ok := h.networkOf(r, rt)
	if !ok || n.net.Addr().IsLoopback() && (r.Header["X-Forwarded-For"] != nil || r.Header["Forwarded"] != nil) {
		return false // through a tunnel that is not trusted, anyone comes from there
	}
	return slices.ContainsFunc(h.seenBy(r.Context(), n), func(person gateway.Principal) bool {
		return rt.Service == "" && h.Policy.People.MayOpen(person, rt.VM, rt.Port)
	})
}

// seenBy returns the persons who have used sessions from a network.
func (h *Handler) seenBy(ctx context.Context, n network) (persons []gateway.Principal) {
	record, err := h.Store.LookSecret(ctx, n.key(), time.Now())
	if err != nil || json.Unmarshal([]byte(record.Data), &persons) != nil {
		return nil // a request of theirs stores it again
	}
	return persons
}

// note stores that a session is used, unless its person may open nothing there.
func (h *Handler) note(r *http.Request, rt names.Route, person gateway.Principal) {
	n, ok := h.networkOf(r, rt)
	if _, opens := h.Policy.People.FirstPort(person, rt.VM); !ok || !opens || rt.Service != "" || h.seen.cached(n, person) {
		return
	}
	ctx := context.WithoutCancel(r.Context())
	h.seen.write.Lock()
	defer h.seen.write.Unlock()
	persons := slices.DeleteFunc(h.seenBy(ctx, n), func(p gateway.Principal) bool { return p == person })
	persons = append(persons, person)
	persons = persons[max(0, len(persons)-maxSeenBy):]
	data, err := json.Marshal(persons)
	if err == nil {
		secret := gateway.Secret{VM: rt.VM.ID, Person: person, Data: string(data), Expires: time.Now().Add(loginLife)}
		err = h.put(ctx, n.key(), secret)
	}
	if err != nil {
		h.Logger.With(gateway.LogVM(rt.VM.Identity)).Warn("network of a session not stored", "err", err)
		return
	}
	h.seen.keep(n, person)
}

// networkOf is false where the network proves nothing.
func (h *Handler) networkOf(r *http.Request, rt names.Route) (network, bool) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || h.Many(from.Addr().Unmap().WithZone("")) {
		return network{}, false
	}
	return network{rt.VM.ID, gateway.PeerAt(from.Addr()).Net}, true
}

func (n network) key() gateway.SecretKey {
	return gateway.SecretKey{Kind: kindSeen, Hash: sha256.Sum256([]byte(n.vm.String() + " " + n.net.String()))}
}

func (s *seen) cached(n network, person gateway.Principal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.known[seenKey{n, person}])
}

func (s *seen) keep(n network, person gateway.Principal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		clear(s.known) // they are read again
	}
	s.known[seenKey{n, person}] = time.Now().Add(seenMemory)
}

func (s *seen) remove(vm gateway.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.known {
		if n.vm == vm {
			delete(s.known, n)
		}
	}
}

// removeRecord makes a network be stored again whose record made room for another secret.
func (s *seen) removeRecord(displaced gateway.Displaced) {
	if displaced.Key.Kind != kindSeen {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.known, func(n seenKey, _ time.Time) bool { return n.vm == displaced.VM && n.key() == displaced.Key })
}

// clear makes every session store its network again: records of more than one person may be gone.
func (s *seen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.known)
}
