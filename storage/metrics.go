package storage

import "github.com/prometheus/client_golang/prometheus"

func newRequestCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lodge_s3_requests_total", Help: "S3 requests answered, by method and HTTP status.",
	}, []string{"method", "code"})
}

// Collectors are the metrics of the server.
func (s *Server) Collectors() []prometheus.Collector { return []prometheus.Collector{s.requests} }
