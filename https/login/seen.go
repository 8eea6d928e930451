package login

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/names"
)

// seen has the networks from which sessions of each VM were used: an IPv4 address or an IPv6 /64. They
// prove nothing about a person. A request that can carry no session, a preflight, passes from them
// alone, so that a stranger elsewhere learns nothing of a private name.
//
// They are stored, as a hash, since the first request after a restart may be a preflight.
type seen struct {
	mu    sync.Mutex
	known map[network]time.Time // until when no look into the store is needed
}

type network struct {
	vm  gateway.ID
	net netip.Prefix
}

// seenMemory is how long a network is cached. It is stored again after that.
const seenMemory = 24 * time.Hour

func newSeen() *seen { return &seen{known: map[network]time.Time{}} }

// SeenFrom reports whether a session of the route's VM was used from the network of r's client.
func (h *Handler) SeenFrom(r *http.Request, rt names.Route) bool {
	n, ok := h.networkOf(r, rt)
	if !ok || n.net.Addr().IsLoopback() && (r.Header["X-Forwarded-For"] != nil || r.Header["Forwarded"] != nil) {
		return false // through a tunnel that is not trusted, anyone comes from there
	}
	if h.seen.cached(n) {
		return true
	}
	_, err := h.Store.LookSecret(r.Context(), n.key(), time.Now())
	return err == nil
}

// note stores that a session is used.
func (h *Handler) note(r *http.Request, rt names.Route, person gateway.Principal) {
	n, ok := h.networkOf(r, rt)
	if !ok || h.seen.cached(n) {
		return
	}
	secret := gateway.Secret{VM: rt.VM.ID, Person: person, Expires: time.Now().Add(loginLife)}
	err := h.Store.PutSecret(context.WithoutCancel(r.Context()), n.key(), secret)
	if err != nil {
		h.Logger.With(gateway.LogVM(rt.VM.Identity)).Warn("network of a session not stored", "err", err)
		return
	}
	h.seen.keep(n)
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

func (s *seen) cached(n network) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.known[n])
}

func (s *seen) keep(n network) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		clear(s.known) // they are read again
	}
	s.known[n] = time.Now().Add(seenMemory)
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
