package mail

import "github.com/prometheus/client_golang/prometheus"

// Collectors are the metrics of the server.
func (s *Server) Collectors() []prometheus.Collector {
	all := []prometheus.Collector{
		counter("lodge_mail_accepted_total", "Messages accepted by SMTP, one per recipient.", s.inbound.Accepted),
		counter("lodge_mail_delivered_total", "Messages copied into guests.", s.replica.Delivered),
	}
	if s.queue != nil {
		all = append(all,
			counter("lodge_mail_sent_total", "Messages accepted by other servers, one per recipient.", s.queue.Sent),
			counter("lodge_mail_failed_total", "Messages given up, one per recipient.", s.queue.Failed),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lodge_mail_waiting", Help: "Messages that wait to be sent, one per recipient."},
				func() float64 { return float64(s.queue.Waiting()) }))
	}
	return all
}

func counter(name, help string, value func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}
