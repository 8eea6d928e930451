package https

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a Server counts.
type metrics struct {
	requests    *prometheus.CounterVec // by status
	connections prometheus.GaugeFunc
}

func newMetrics(conns *connCount) metrics {
	return metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodge_web_requests_total", Help: "Web requests answered, by HTTP status; 0 where the answer was cut off before it.",
		}, []string{"code"}),
		connections: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "lodge_web_connections", Help: "Open web connections, those of VMs included.",
		}, func() float64 { return float64(conns.count()) }),
	}
}

func (m metrics) served(status int) { m.requests.WithLabelValues(strconv.Itoa(status)).Inc() }

// Collectors are the metrics of the server.
func (s *Server) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.requests, s.metrics.connections}
}
