package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestMetricsCountVMsAndWhatPartsCount(t *testing.T) {
	directory := gatewaytest.NewDirectory(t, new(gatewaytest.Records),
		gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running},
		gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "shop"}, Desired: gateway.Stopped},
	)
	part := prometheus.NewCounter(prometheus.CounterOpts{Name: "lodge_part_total", Help: "A part's."})
	part.Add(3)
	handler := metricsHandler(func() map[string]int { return byDesired(directory) }, []prometheus.Collector{part})
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	for _, line := range []string{`lodge_vms{state="running"} 1`, `lodge_vms{state="stopped"} 1`, "lodge_part_total 3", "process_open_fds"} {
		if !strings.Contains(answer.Body.String(), line) {
			t.Errorf("not in the metrics: %s", line)
		}
	}
}
