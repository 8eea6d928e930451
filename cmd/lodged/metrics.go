package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lodge/gateway"
)

// metricsHandler serves the metrics of every part in Prometheus's format.
func metricsHandler(vms func() map[string]int, parts ...[]prometheus.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(vmCollector{vms})
	for _, part := range parts {
		registry.MustRegister(part...)
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// vmCollector counts the VMs by their desired state. It reads the Directory alone, so that a hung
// libvirtd delays no scrape.
type vmCollector struct{ count func() map[string]int }

// Describe implements prometheus.Collector.
func (c vmCollector) Describe(out chan<- *prometheus.Desc) { out <- vmsDesc() }

// Collect implements prometheus.Collector.
func (c vmCollector) Collect(out chan<- prometheus.Metric) {
	for state, n := range c.count() {
		out <- prometheus.MustNewConstMetric(vmsDesc(), prometheus.GaugeValue, float64(n), state)
	}
}

func vmsDesc() *prometheus.Desc {
	return prometheus.NewDesc("lodge_vms", "VMs, by state.", []string{"state"}, nil)
}

// byDesired counts the VMs of a Directory by their desired state.
func byDesired(directory *gateway.Directory) map[string]int {
	counts := map[string]int{string(gateway.Running): 0, string(gateway.Stopped): 0, string(gateway.Removed): 0}
	for _, vm := range directory.All() {
		counts[string(vm.Desired)]++
	}
	return counts
}
