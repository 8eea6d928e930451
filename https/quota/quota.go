// Package quota shares the requests to VMs among the VMs and their visitors, so that the crowd of one
// VM leaves the others their pages, and a few visitors leave the next one theirs.
//
// The requests under way are shared by the dynamic threshold of package limit, in two steps: a VM may
// have no more than what is free in all, and a visitor no more than a part of what is free for the VM.
// Beside these, a VM and a visitor have a rate. A visitor is a person who is logged in, another VM or
// an address. Tunnels and proxies end at loopback: one may have all that is free for the VM, and has
// no rate.
//
// It never waits: a request over a limit is refused, and the caller decides on the reply.
package quota

import (
	"math"
	"runtime"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
)

const (
	// A visitor's page of a development server may load thousands of modules at once.
	visitorRate, visitorBurst = 500, 4000 // requests per second

	// A core passes on some 10,000 small requests per second.
	rateOfCore, burstSeconds = 2000, 2

	visitorsShare = 16 // one visitor has at most this part of the requests under way
	visitorsPart  = 8  // and at most this part of what is free for the VM
)

// Visitor is the unit by which a VM's requests are counted.
type Visitor struct {
	Person string       // who is logged in; empty for others
	Peer   gateway.Peer // where others come from
}

// tunnel reports whether the visitor stands for many.
func (v Visitor) tunnel() bool {
	return v.Person == "" && (v.Peer.Loopback() || v.Peer == (gateway.Peer{}))
}

// Over is the limit that a request is over.
type Over string

// The limits. None admits the request.
const (
	None      Over = ""
	OfVM      Over = "vm"
	OfVisitor Over = "visitor"
)

// Quota admits requests. It is safe for concurrent use; make one with New.
type Quota struct {
	all     int
	vmRates *limit.Rates[gateway.ID]
	rates   *limit.Rates[visit]

	mu     sync.Mutex
	sum    int
	vms    map[gateway.ID]int
	visits map[visit]int
}

// visit is a visitor of one VM: one at the limit in one VM still gets the others.
type visit struct {
	vm      gateway.ID
	visitor Visitor
}

// WithoutRates returns q with no rates, for measurements. Call it before q is used.
func (q *Quota) WithoutRates() *Quota {
	q.vmRates, q.rates = limit.NewRates[gateway.ID](math.Inf(1), 0), limit.NewRates[visit](math.Inf(1), 0)
	return q
}

// New returns a Quota for a number of requests under way in all.
func New(all int) *Quota {
	ofVM := rateOfCore * runtime.GOMAXPROCS(0)
	return &Quota{
		all:     all,
		vmRates: limit.NewRates[gateway.ID](float64(ofVM), ofVM*burstSeconds),
		rates:   limit.NewRates[visit](visitorRate, visitorBurst),
		vms:     map[gateway.ID]int{}, visits: map[visit]int{},
	}
}

// Enter admits a request to a VM, unless it is over a limit. leave ends the request: call it once or
// more often; it is nil over a limit.
func (q *Quota) Enter(vm gateway.ID, visitor Visitor) (leave func(), over Over) {
	if visitor.Person != "" {
		visitor.Peer = gateway.Peer{} // wherever the person is
	}
	one := visit{vm, visitor}
	if over := q.hold(one); over != None {
		return nil, over
	}
	if over := q.spend(one); over != None {
		q.release(one)
		return nil, over
	}
	return sync.OnceFunc(func() { q.release(one) }), None
}

// hold counts a request as under way.
func (q *Quota) hold(one visit) Over {
	q.mu.Lock()
	defer q.mu.Unlock()
	has, free := q.visits[one], q.all-q.sum-q.vms[one.vm]
	switch {
	case free <= 0:
		return OfVM
	case one.visitor.tunnel() && has >= free:
		return OfVisitor
	case !one.visitor.tunnel() && has > 0 && (has >= q.all/visitorsShare || has*visitorsPart >= free):
		return OfVisitor
	}
	q.sum++
	q.vms[one.vm]++
	q.visits[one]++
	return None
}

// spend takes a token of the visitor, then of the VM: a visitor without one takes none of the VM's.
func (q *Quota) spend(one visit) Over {
	now := time.Now()
	switch {
	case one.visitor.tunnel():
		return None
	case !q.rates.Take(one, now):
		return OfVisitor
	case !q.vmRates.Take(one.vm, now):
		return OfVM
	}
	return None
}

func (q *Quota) release(one visit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sum--
	if q.vms[one.vm]--; q.vms[one.vm] == 0 {
		delete(q.vms, one.vm)
	}
	if q.visits[one]--; q.visits[one] == 0 {
		delete(q.visits, one) // strangers choose addresses: none is kept for nothing
	}
}
