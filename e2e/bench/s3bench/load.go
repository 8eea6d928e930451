package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bucket      = "bench"
	connections = 16
)

// size is a size of objects.
type size struct {
	name          string
	bytes         int
	written, read int // how many names are written and read, in turns
	put, get      map[string]float64
}

func sizes() []size {
	return []size{
		{"4 KiB", 4 << 10, 20_000, 500, map[string]float64{"minio": 4}, map[string]float64{"minio": 2.5, "versitygw": 1.2}},
		{"64 KiB", 64 << 10, 2000, 500, map[string]float64{"minio": 2}, map[string]float64{"minio": 2.5, "versitygw": 1.2}},
		{"8 MiB", 8 << 20, 48, 20, map[string]float64{"minio": 1}, map[string]float64{"nginx": 0.9}},
	}
}

// sample is what one round has shown.
type sample struct {
	perSecond float64
	cpu       time.Duration // of the server, per request
}

// load compares PUT and GET of all servers, and their memory.
func load(ctx context.Context, b *bench) error {
	lodged, err := b.startLodged(ctx, filepath.Join(b.dir, "lodged"))
	if err != nil {
		return err
	}
	defer lodged.stop()
	peers, err := b.startPeers(ctx)
	for _, p := range peers {
		defer p.stop()
	}
	if err != nil {
		return err
	}
	all := append([]*server{lodged}, peers...)
	for _, s := range all {
		if err := s.makeBucket(ctx); err != nil {
			return err
		}
	}
	for _, kind := range sizes() {
		if err := b.compare(ctx, all, kind); err != nil {
			return err
		}
	}
	var memory []string
	for _, s := range all {
		n, err := s.memory("VmHWM")
		if err != nil {
			return err
		}
		if !s.static { // nginx's workers are processes of their own
			memory = append(memory, fmt.Sprintf("%s %.0f", s.name, n))
		}
	}
	line("peak RSS, MiB", strings.Join(memory, ", "), "lodged < 120 + 64 of cache")
	return nil
}

func (s *server) makeBucket(ctx context.Context) error {
	if s.name != "lodged" && s.name != "minio" {
		return nil // it is a directory
	}
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	err = c.do("PUT", "/"+bucket, "", noBody, "", io.Discard)
	if err != nil && strings.Contains(err.Error(), "BucketAlreadyOwnedByYou") {
		return nil
	}
	return err
}

// compare has all servers take turns with writes, and then with reads.
func (b *bench) compare(ctx context.Context, all []*server, kind size) error {
	content := make([]byte, kind.bytes)
	for i := range content {
		content[i] = byte(rand.Uint32()) //nolint:gosec // it has no secret
	}
	sent := newBody(content)
	for _, s := range all {
		if err := s.prepare(ctx, kind, sent); err != nil {
			return err
		}
	}
	puts, gets := map[string][]sample{}, map[string][]sample{}
	for range b.rounds {
		for _, s := range all {
			if s.static {
				continue
			}
			got, err := s.round(ctx, b.length, func(c *client, i int) error {
				return c.do("PUT", fmt.Sprintf("/%s/p%d-%d", bucket, kind.bytes, i%kind.written), "", sent, "", io.Discard)
			})
			if err != nil {
				return err
			}
			puts[s.name] = append(puts[s.name], got)
		}
		for _, s := range all {
			got, err := s.round(ctx, b.length, func(c *client, i int) error {
				return c.do("GET", readPath(kind, i%kind.read), "", noBody, "", io.Discard)
			})
			if err != nil {
				return err
			}
			gets[s.name] = append(gets[s.name], got)
		}
	}
	printRatios("PUT "+kind.name, puts, kind.put)
	printRatios("GET "+kind.name, gets, kind.get)
	return nil
}

var noBody = newBody(nil) //nolint:gochecknoglobals // a constant: the hash of nothing

func readPath(kind size, i int) string { return fmt.Sprintf("/%s/g%d-%d", bucket, kind.bytes, i) }

// prepare stores the objects that are read.
func (s *server) prepare(ctx context.Context, kind size, sent body) error {
	if s.static {
		for i := range kind.read {
			if err := os.WriteFile(filepath.Join(s.dir, "data", readPath(kind, i)), sent.bytes, 0o644); err != nil { //nolint:gosec // nginx's workers have another user
				return err
			}
		}
		return nil
	}
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	for i := range kind.read {
		if err := c.do("PUT", readPath(kind, i), "", sent, "", io.Discard); err != nil {
			return err
		}
	}
	return nil
}

// round sends requests for a while, one after the other on each connection; do sends the one with a number.
func (s *server) round(ctx context.Context, length time.Duration, do func(c *client, i int) error) (sample, error) {
	var all []*client
	for range connections {
		c, err := s.dial(ctx)
		if err != nil {
			return sample{}, err
		}
		defer c.close()
		all = append(all, c)
	}
	before, err := s.cpu()
	if err != nil {
		return sample{}, err
	}
	var number, done atomic.Int64
	var working sync.WaitGroup
	failed := make(chan error, connections)
	begun := time.Now()
	for _, c := range all {
		working.Go(func() {
			for time.Since(begun) < length && ctx.Err() == nil {
				if err := do(c, int(number.Add(1))); err != nil {
					failed <- err
					return
				}
				done.Add(1)
			}
		})
	}
	working.Wait()
	took := time.Since(begun)
	select {
	case err := <-failed:
		return sample{}, err
	default:
	}
	after, err := s.cpu()
	return sample{float64(done.Load()) / took.Seconds(), (after - before) / time.Duration(max(done.Load(), 1))}, err
}

// printRatios prints the medians, and how lodged's is to each of the others.
func printRatios(what string, all map[string][]sample, goals map[string]float64) {
	rate := map[string]float64{}
	var values, wanted []string
	for _, name := range []string{"lodged", "minio", "versitygw", "nginx"} {
		if len(all[name]) == 0 {
			continue
		}
		rates, costs := make([]float64, 0, len(all[name])), make([]time.Duration, 0, len(all[name]))
		for _, s := range all[name] {
			rates, costs = append(rates, s.perSecond), append(costs, s.cpu)
		}
		rate[name] = middle(rates)
		text := fmt.Sprintf("%s %.0f/s (%.2f ms)", name, rate[name], ms(middle(costs)))
		if name != "lodged" {
			text += fmt.Sprintf(" = %.2f", rate["lodged"]/rate[name])
		}
		values = append(values, text)
		if goal := goals[name]; goal > 0 {
			wanted = append(wanted, fmt.Sprintf("≥ %.1f × %s", goal, name))
		}
	}
	line(what, strings.Join(values, ", "), strings.Join(wanted, ", "))
}
