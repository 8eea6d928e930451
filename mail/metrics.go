package mail

import "github.com/prometheus/client_golang/prometheus"

// Collectors are the metrics of the server.
func (s *Server) Collectors() []prometheus.Collector {
	return []prometheus.Collector{
		counter("lodge_mail_accepted_total", "Messages accepted by SMTP, one per recipient.", s.inbound.Accepted),
		counter("lodge_mail_delivered_total", "Messages copied into guests.", s.replica.Delivered),
	}
}

func counter(name, help string, value func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}
