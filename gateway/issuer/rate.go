package issuer

import (
	"github.com/prometheus/client_golang/prometheus"
)

// A VM gets burst tokens at once, and then perSecond. A signature takes some 2 ms of a slow CPU, so
// that a VM which asks all the time uses some 2 % of one.
const (
	perSecond = 10
	burst     = 50
)

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
