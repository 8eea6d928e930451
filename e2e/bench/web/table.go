package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// measurement is one row of the table.
type measurement struct {
	name   string
	unit   string
	base   string // the peer whose value is 1.0
	target string // for lodged
	rounds int    // at most, if not 0
	run    func(ctx context.Context, b *bench, p *peer) (float64, error)
}

func measurements(each time.Duration, conns int) []measurement {
	const cpu = "CPU-s/10k"
	return []measurement{
		{"h1-1KiB", cpu, "nginx", "≤ 2.2", 0, wrk("/1k", each)},
		{"h2-1KiB", cpu, "nginx", "≤ 3.5", 0, h2load("/1k", each)},
		{"1MiB", cpu, "nginx", "≤ 1.0", 0, wrk("/1m", each)},
		{"handshake", cpu, "nginx", "≤ 1.1", 0, handshakes(each)},
		{"p99-at-2000/s", "ms", "haproxy", "≤ 1.2", 0, latency(each)},
		{"idle-h1-per-1000", "MB", "nginx", "≤ 20 MB", 2, idle("http/1.1", conns)},
		{"idle-h2-per-1000", "MB", "nginx", "", 1, idle("h2", conns)},
	}
}

// result has the values of a measurement, by peer and round.
type result struct {
	measurement
	values map[string][]float64
}

// measure runs one measurement in rounds. The peers alternate within a round, so that other load on
// the host falls on all of them.
func (b *bench) measure(ctx context.Context, m measurement, rounds int) (map[string][]float64, error) {
	values := map[string][]float64{}
	if m.rounds > 0 {
		rounds = min(rounds, m.rounds)
	}
	for range rounds {
		for _, p := range b.peers {
			v, err := m.run(ctx, b, p)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			values[p.name] = append(values[p.name], v)
		}
	}
	return values, nil
}

// print writes the medians: absolute values, and as multiples of the base.
func (b *bench) print(w io.Writer, results []result) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // a table on a terminal
	line("%-18s %-10s", "", "")
	for _, p := range b.peers {
		line(" %18s", p.name)
	}
	line("  lodged's target\n")
	for _, r := range results {
		line("%-18s %-10s", r.name, r.unit)
		base := median(r.values[r.base])
		for _, p := range b.peers {
			v := median(r.values[p.name])
			line(" %9.2f", v)
			if base > 0 {
				line(" (%5.2fx)", v/base)
			} else {
				line(" %8s", "")
			}
		}
		line("  %s\n", r.target)
	}
	for _, missing := range b.missing {
		line("not measured: %s\n", missing)
	}
}

// median is the middle one, 0 without values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
