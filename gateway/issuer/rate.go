package issuer

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"lodge/gateway"
)

// A VM gets burst tokens at once, and then perSecond. A signature takes some 2 ms of a slow CPU, so
// that a VM which asks all the time uses some 2 % of one.
const (
	perSecond = 10
	burst     = 50
)

// bucket is the token bucket of a VM.
type bucket = rate.Limiter

// rates has one bucket per VM that has asked.
type rates struct {
	mu sync.Mutex
	by map[gateway.ID]*bucket
}

// take reports whether a VM may have a token now.
func (r *rates) take(id gateway.ID, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by[id] == nil {
		r.by[id] = rate.NewLimiter(perSecond, burst)
	}
	return r.by[id].AllowN(now, 1)
}

func (r *rates) remove(id gateway.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.by, id)
}

// The results of asking for a token, as metrics show them.
const (
	resultIssued  = "issued"
	resultRefused = "refused" // too many
	resultFailed  = "failed"
)

func newCounter() *prometheus.CounterVec {
	tokens := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lodge_identity_tokens_total",
		Help: "Identity tokens that VMs asked for: issued, refused by the limit per VM, or failed for want of a key.",
	}, []string{"result"})
	for _, result := range []string{resultIssued, resultRefused, resultFailed} {
		tokens.WithLabelValues(result) // shown from the start
	}
	return tokens
}

// Collectors are the metrics of the issuer.
func (i *Issuer) Collectors() []prometheus.Collector { return []prometheus.Collector{i.tokens} }
