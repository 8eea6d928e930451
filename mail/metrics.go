package mail

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Collectors are the metrics of the server.
func (s *Server) Collectors() []prometheus.Collector {
	all := []prometheus.Collector{
		counter("lodge_mail_accepted_total", "Messages accepted by SMTP, one per recipient.", s.inbound.Accepted),
		counter("lodge_mail_delivered_total", "Messages copied into guests.", s.replica.Delivered),
	}
	all = append(all, gauge("lodge_mail_oldest_waiting_seconds", "Age of the oldest message that waits to be copied into its guest; 0 if none does.", func() float64 { return age(s.oldestWaiting()) }))
	if s.queue != nil {
		all = append(all,
			gauge("lodge_mail_queue_oldest_seconds", "Age of the oldest message that waits to be sent; 0 if none does.", func() float64 { return age(s.queue.Oldest()) }),
			counter("lodge_mail_sent_total", "Messages accepted by other servers, one per recipient.", s.queue.Sent),
			counter("lodge_mail_failed_total", "Messages given up, one per recipient.", s.queue.Failed),
			gauge("lodge_mail_waiting", "Messages that wait to be sent, one per recipient.", func() float64 { return float64(s.queue.Waiting()) }))
	}
	return all
}

// oldestWaiting is when the oldest message that is not in its VM was received, of the mailboxes that are open: all
// are, some seconds after the start.
func (s *Server) oldestWaiting() (oldest time.Time) {
	for _, m := range s.config.Directory.All() {
		box := s.store.Opened(m.ID)
		if box == nil {
			continue
		}
		if _, at := box.Waiting(); !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	return oldest
}

func age(since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return time.Since(since).Seconds()
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func counter(name, help string, value func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}
