package people

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"lodge/gateway"
)

// requestPrefix is that of the keys of Requests in gateway.Shared: request/<id>.
const requestPrefix = "request/"

// Requests has the requests for access that nobody has answered yet. Each write is on disk before it is
// visible, and ignores cancellation. It is safe for concurrent use.
//
// A request for a name that no VM has is kept and counted like any other, so that neither an answer nor
// its time shows what exists.
type Requests struct {
	shared gateway.Shared
	now    func() time.Time
	mu     sync.Mutex
	all    []gateway.AccessRequest // ordered by Asked
}

// OpenRequests reads the requests; now is the clock.
func OpenRequests(ctx context.Context, shared gateway.Shared, now func() time.Time) (*Requests, error) {
	r := &Requests{shared: shared, now: now}
	if err := r.read(ctx); err != nil {
		return nil, fmt.Errorf("read requests for access: %w", err)
	}
	return r, nil
}

func (r *Requests) read(ctx context.Context) error {
	entries, _, err := r.shared.List(ctx, requestPrefix)
	if err != nil {
		return err
	}
	all := make([]gateway.AccessRequest, len(entries))
	for i, entry := range entries {
		if err := json.Unmarshal(entry.Value, &all[i]); err != nil {
			return fmt.Errorf("%s: %w", entry.Key, err)
		}
		all[i].ID = strings.TrimPrefix(entry.Key, requestPrefix)
	}
	slices.SortFunc(all, func(a, b gateway.AccessRequest) int { return a.Asked.Compare(b.Asked) })
	r.all = all
	return nil
}

// renewEvery is how often a request that is made again is written again.
const renewEvery = time.Hour

// Add records a request, whose ID and times it sets. One that somebody makes again keeps its ID, and lasts
// longer; added is false if that changes nothing yet. KindConflict: the person has asked for too many pages;
// KindUnavailable: so have all together. What is over the limit of one VM displaces the oldest there, those
// of unproven addresses first.
func (r *Requests) Add(ctx context.Context, q gateway.AccessRequest) (_ gateway.AccessRequest, added bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.Asked = r.now().UTC().Truncate(time.Second)
	q.Until = q.Asked.Add(gateway.AccessRequestLife)
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	q.ID = hex.EncodeToString(id)
	gone := func(old gateway.AccessRequest) bool { return !q.Asked.Before(old.Until) }
	i := slices.IndexFunc(r.all, func(old gateway.AccessRequest) bool {
		sameVM := old.VM == q.VM || old.VM == (gateway.ID{}) // hidden: see displaced and Hide
		return old.Host == q.Host && old.Person == q.Person && old.Address == q.Address && sameVM && old.Port == q.Port && !gone(old)
	})
	switch {
	case i < 0:
		err = r.room(q)
	case q.Asked.Sub(r.all[i].Asked) < renewEvery:
		return r.all[i], false, nil
	default:
		q.ID = r.all[i].ID
	}
	if err != nil {
		return gateway.AccessRequest{}, false, err
	}
	displaced := r.displaced(&q)
	value, err := json.Marshal(q)
	if err != nil {
		return gateway.AccessRequest{}, false, err
	}
	put := gateway.Op{Key: requestPrefix + q.ID, Value: value}
	err = r.change(ctx, []gateway.Op{put}, func(old gateway.AccessRequest) bool { return old.ID != q.ID && (old.ID == displaced || gone(old)) })
	if err != nil {
		return gateway.AccessRequest{}, false, err
	}
	r.all = append(slices.DeleteFunc(r.all, func(old gateway.AccessRequest) bool { return old.ID == q.ID }), q)
	return q, true, nil
}

// room checks the limits that do not depend on what exists.
func (r *Requests) room(q gateway.AccessRequest) error {
	all, unproven, own := 0, 0, 0
	for _, old := range r.all {
		if !q.Asked.Before(old.Until) {
			continue
		}
		all++
		if !old.Proven() {
			unproven++
		}
		if q.Proven() && old.Person == q.Person || !q.Proven() && !old.Proven() && peer(old) == peer(q) {
			own++
		}
	}
	limit := gateway.MaxAccessRequestsOfPerson
	switch {
	case q.Proven():
	case peer(q).Loopback(): // a tunnel stands for many
		limit = gateway.MaxUnprovenRequests
	default:
		limit = gateway.MaxUnprovenRequestsOfPeer
	}
	switch {
	case own >= limit:
		return gateway.Errorf(gateway.KindConflict, "there are %d requests of yours without an answer", own).
			WithHint("Wait for an answer: a request lasts %d days.", int(gateway.AccessRequestLife.Hours()/24))
	case all >= gateway.MaxAccessRequests || !q.Proven() && unproven >= gateway.MaxUnprovenRequests:
		return gateway.Errorf(gateway.KindUnavailable, "there are too many requests for access on this host").
			WithHint("Ask the owner in another way, or come back in a few days.")
	}
	return nil
}

// peer is the unit by which requests of unproven addresses are counted.
func peer(q gateway.AccessRequest) gateway.Peer {
	from, _ := netip.ParseAddr(q.From) // none: a pipe
	return gateway.PeerAt(from)
}

// displaced returns the ID of the request that makes room for q at its VM; empty if there is room. An
// unproven address displaces no proven one: such a q is kept as one that nobody sees.
func (r *Requests) displaced(q *gateway.AccessRequest) (id string) {
	if q.VM == (gateway.ID{}) {
		return ""
	}
	var have []gateway.AccessRequest
	for _, old := range r.all {
		if old.VM == q.VM && old.ID != q.ID && q.Asked.Before(old.Until) {
			have = append(have, old)
		}
	}
	if len(have) < gateway.MaxAccessRequestsOfVM {
		return ""
	}
	if i := slices.IndexFunc(have, func(old gateway.AccessRequest) bool { return !old.Proven() }); i >= 0 {
		return have[i].ID
	}
	if !q.Proven() {
		q.VM = gateway.ID{}
		return ""
	}
	return have[0].ID
}

// All returns the requests for VMs, the oldest first.
func (r *Requests) All() []gateway.AccessRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	var all []gateway.AccessRequest
	for _, q := range r.all {
		if q.VM != (gateway.ID{}) && now.Before(q.Until) {
			all = append(all, q)
		}
	}
	return all
}

// ByID returns one of All.
func (r *Requests) ByID(id string) (gateway.AccessRequest, bool) {
	all := r.All()
	i := slices.IndexFunc(all, func(q gateway.AccessRequest) bool { return q.ID == id })
	if i < 0 {
		return gateway.AccessRequest{}, false
	}
	return all[i], true
}

// Remove removes the requests for which which returns true.
func (r *Requests) Remove(ctx context.Context, which func(gateway.AccessRequest) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.change(ctx, nil, which)
}

// Hide makes requests count until they expire, but nobody sees them any more: a place that were free again
// would show who asks that the VM exists.
func (r *Requests) Hide(ctx context.Context, which func(gateway.AccessRequest) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, do := slices.Clone(r.all), []gateway.Op(nil)
	for i := range all {
		if all[i].VM == (gateway.ID{}) || !which(all[i]) {
			continue
		}
		all[i].VM = gateway.ID{}
		value, err := json.Marshal(all[i])
		if err != nil {
			return err
		}
		do = append(do, gateway.Op{Key: requestPrefix + all[i].ID, Value: value})
	}
	if err := r.change(ctx, do, func(gateway.AccessRequest) bool { return false }); err != nil {
		return err
	}
	r.all = all
	return nil
}

// change writes operations together with the removal of requests, in one Commit if it has room. The caller
// holds r.mu.
func (r *Requests) change(ctx context.Context, do []gateway.Op, remove func(gateway.AccessRequest) bool) error {
	ctx = context.WithoutCancel(ctx)
	for _, q := range r.all {
		if remove(q) {
			do = append(do, gateway.Op{Key: requestPrefix + q.ID, Delete: true})
		}
	}
	for part := range slices.Chunk(do, gateway.MaxCommitOps) {
		if _, err := r.shared.Commit(ctx, nil, part); err != nil {
			return fmt.Errorf("record requests for access: %w", errors.Join(err, r.read(ctx))) // the outcome may be unknown
		}
	}
	r.all = slices.DeleteFunc(r.all, remove)
	return nil
}
