// Package bench measures the performance of Lodge and prints a table. No test fails because of a
// duration.
//
//	make bench
//	make bench BENCHFLAGS='-before old'   # boots the image named old in turn with debian-13
package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
	"lodge/gateway/store"
)

func TestMain(m *testing.M) { harness.Main(m) }

// row prints one line of the table.
func row(what, value, promise string) { fmt.Printf("%-52s %16s  %s\n", what, value, promise) }

func took(d time.Duration) string { return d.Round(time.Millisecond).String() }

// TestTable runs the measurements one after the other.
func TestTable(t *testing.T) {
	harness.NeedVMs(t)
	identity()
	t.Run("many", manyVMs) // each ends its libvirtd
	t.Run("undo", undo)
	t.Run("resume", resume)
	t.Run("boot", boot)
	t.Run("resumed", func(t *testing.T) { firstByte(t, "resumed", gateway.Spec{}) })
	t.Run("loader", func(t *testing.T) { firstByte(t, "own boot loader", gateway.Spec{Boot: true}) })
	t.Run("direct", func(t *testing.T) {
		firstByte(t, "kernel started directly", gateway.Spec{Size: gateway.Size{DirectBoot: true}})
	})
}

// identity measures the cost of a connection's identity, also through TLS.
func identity() {
	vm := gateway.Identity{ID: gateway.NewID(), Name: "alpha"}
	plain := net.Conn(gateway.NewConn(nil, vm))
	for name, c := range map[string]net.Conn{"identity of a connection": plain, "identity of a connection, through TLS": tls.Server(plain, nil)} {
		r := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if gateway.IdentityOf(c) != vm {
					b.Fatal("the wrong VM")
				}
			}
		})
		row(name, fmt.Sprintf("%.1f ns, %d allocs", float64(r.T.Nanoseconds())/float64(r.N), r.AllocsPerOp()), "< 1 µs, no allocation")
	}
}

// manyVMs starts lodged with 50 VMs that are defined and off.
func manyVMs(t *testing.T) {
	const vms = 50
	h := harness.New(t)
	h.StartLibvirt(t)
	define(t, h, vms)
	programs := harness.Programs(t, false) // built before the clock starts
	begun := time.Now()
	d := h.StartDaemon(t)
	row(fmt.Sprintf("lodged ready with %d VMs", vms), took(time.Since(begun)), "< 1 s")
	harness.Eventually(t, "all taps are there", time.Minute, func() error {
		taps, err := filepath.Glob("/sys/class/net/lg*")
		if err != nil || len(taps) < vms {
			return fmt.Errorf("%d taps, %w", len(taps), err)
		}
		return nil
	})
	row(fmt.Sprintf("… and the listeners of all %d open", vms), took(time.Since(begun)), "")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if size, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kib int
			_, _ = fmt.Sscan(size, &kib) // 0 in the table shows the failure
			row("resident memory of lodged, idle", fmt.Sprintf("%.1f MiB", float64(kib)/1024), "< 80 MiB")
		}
	}
	if info, err := os.Stat(filepath.Join(programs, "lodged")); err == nil {
		row("size of the lodged program", fmt.Sprintf("%.1f MiB", float64(info.Size())/(1<<20)), "")
	}
	d.Stop(t)
}

// define records VMs as lodged does.
func define(t *testing.T, h *harness.Host, vms int) {
	t.Helper()
	ctx := t.Context()
	s, err := store.Open(ctx, filepath.Join(h.StateDir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir, err := gateway.OpenDirectory(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	for n := range vms {
		if _, err := dir.Create(ctx, gateway.VM{
			Identity: gateway.Identity{ID: gateway.NewID(), Name: fmt.Sprintf("vm%d", n)},
			Size:     gateway.Size{Image: "debian-13", CPUs: 1, MemoryMiB: 512, DiskGiB: 4}, Desired: gateway.Stopped, Ready: true,
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// firstByte measures from lodge new to the first byte of the example page, phase by phase.
func firstByte(t *testing.T, how string, spec gateway.Spec) {
	h := harness.New(t)
	h.UseImages(t)
	h.StartLibvirt(t)
	h.StartDaemon(t)
	userData, err := os.ReadFile("../../docs/examples/hello/user-data.yaml")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	last := begun
	next := func(phase string) {
		row("lodge new, "+how+": "+phase, took(time.Since(last)), "")
		last = time.Now()
	}
	phase := ""
	progress := func(p gateway.Progress) {
		if phase != "" {
			next(phase)
		}
		phase = p.Phase
	}
	c := h.Client()
	spec.Name, spec.UserData = "hello", string(userData)
	if _, err := c.New(t.Context(), spec, progress); err != nil {
		t.Fatal(err)
	}
	next(phase)
	phase = ""
	if _, err := c.Wait(t.Context(), "hello", api.HTTP, func(p gateway.Progress) {
		if p.Phase != "http" { // which reports several steps
			next(p.Phase)
		}
	}); err != nil {
		t.Fatal(err)
	}
	next("http")
	h.Lodge(t, "share", "hello", "public")
	fetch(t, c, "https://hello."+h.Domain+"/")
	next("first HTTPS byte")
	row("lodge new, "+how+": in all", took(time.Since(begun)), "")
}

func fetch(t *testing.T, c *control.Client, url string) {
	t.Helper()
	pem, err := c.RootPEM(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:443")
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the page: %s, %v", resp.Status, err)
	}
}
