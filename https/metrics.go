package https

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"lodge/gateway"
	"lodge/https/conns"
	"lodge/https/quota"
)

// metrics are what a Server counts.
type metrics struct {
	requests *prometheus.CounterVec // by status
	cut      *prometheus.CounterVec // by reason
	refused  *prometheus.CounterVec // by limit
}

func newMetrics() metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodge_web_requests_total", Help: "Web requests answered, by HTTP status; 0 where the answer was cut off before it.",
		}, []string{"code"}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodge_web_connections_cut_total",
			Help: "Web connections closed by a limit: full, share or handshakes for places that others needed; " +
				"handshake, body or answer for a client that made no progress (one request of HTTP/2).",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodge_web_requests_refused_total",
			Help: "Web requests refused by a limit on those under way and per second: that of the vm, or of its visitor.",
		}, []string{"limit"}),
	}
	for _, over := range []quota.Over{quota.OfVM, quota.OfVisitor} {
		m.refused.WithLabelValues(string(over)) // shown from the start
	}
	for _, reason := range conns.Reasons() {
		m.cut.WithLabelValues(string(reason)) // shown from the start
	}
	return m
}

func (m metrics) served(status int) { m.requests.WithLabelValues(strconv.Itoa(status)).Inc() }

func (m metrics) cutOff(reason conns.Reason) { m.cut.WithLabelValues(string(reason)).Inc() }

// Collectors are the metrics of the server.
func (s *Server) Collectors() []prometheus.Collector {
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lodge_web_connections", Help: "Open web connections, those of VMs included.",
	}, func() float64 { return float64(s.conns.Count()) })
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lodge_web_held_requests", Help: "Web requests that wait for a VM which they have woken.",
	}, func() float64 {
		_, all := s.waker.held.Held(gateway.ID{})
		return float64(all)
	})
	return []prometheus.Collector{s.metrics.requests, s.metrics.cut, s.metrics.refused, open, held}
}
