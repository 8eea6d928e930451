package acme

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"

	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/gateway/store"
	"lodge/https/acme/acmetest"
)

func TestMain(m *testing.M) {
	if err := acmetest.Build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	sandboxtest.Main(m)
}

// fullDisk is a Source's state on a small disk.
type fullDisk struct {
	dir string
	kv  *store.KV
	log lockedBuffer
}

func newFullDisk(t *testing.T) *fullDisk {
	t.Helper()
	d := &fullDisk{dir: sandboxtest.SmallDisk(t, 8<<20)}
	db, err := store.Open(t.Context(), filepath.Join(d.dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { db.Close() })
	d.kv = db.KV()
	return d
}

func (d *fullDisk) config(c *Config) {
	c.KV, c.Logger = d.kv, slog.New(slog.NewTextHandler(&d.log, nil))
}

// fill leaves no room on the disk.
func (d *fullDisk) fill() {
	for size := 64 << 10; size > 0; size /= 2 {
		for i := 0; ; i++ {
			if os.WriteFile(filepath.Join(d.dir, fmt.Sprintf("fill-%d-%d", size, i)), make([]byte, size), 0o600) != nil {
				break
			}
		}
	}
}

// empty makes room again.
func (d *fullDisk) empty(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "fill-*"))
	gatewaytest.Must(t, err)
	if len(files) == 0 {
		t.Error("the disk was not full")
	}
	for _, file := range files {
		gatewaytest.Must(t, os.Remove(file))
	}
}

// stored returns how many of a name's key, certificate and metadata are stored.
func (d *fullDisk) stored(t *testing.T, name string) (n int) {
	t.Helper()
	keys, err := d.kv.List(t.Context(), keyPrefix+"certificates/")
	gatewaytest.Must(t, err)
	for _, key := range keys {
		if strings.Contains(key, "/"+name+"/") {
			n++
		}
	}
	return n
}

// TestFullDisk: no certificate is ordered that cannot be stored, names that have one are served, and
// once there is room the next handshake gets its own.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	d := newFullDisk(t)
	f.open(p, d.config)
	const have, fresh = "have-fulldisk.blog." + domain, "fresh-fulldisk.blog." + domain
	_, err := f.handshake(p, have)
	gatewaytest.Must(t, err)
	d.fill()
	orders := p.Orders.Load()
	for range 3 {
		if _, err := f.handshake(p, fresh); err == nil || p.Orders.Load() != orders {
			t.Errorf("a new name on a full disk: %v, after %d orders", err, p.Orders.Load()-orders)
		}
	}
	if got := d.log.String(); strings.Count(got, "certificate not stored") != 1 || !strings.Contains(got, "host="+fresh) || !strings.Contains(got, "disk is full") {
		t.Errorf("the log does not show it once:\n%s", got)
	}
	if _, err := f.handshake(p, have); err != nil {
		t.Errorf("a name that has a certificate: %v", err)
	}
	if d.stored(t, have) != 3 || d.stored(t, fresh) != 0 {
		t.Errorf("%d and %d parts are stored, want 3 and 0", d.stored(t, have), d.stored(t, fresh))
	}
	d.empty(t)
	if _, err := f.handshake(p, fresh); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestDiskFillsDuringAnOrder: nothing is half stored, and the next start has what was there before.
func TestDiskFillsDuringAnOrder(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	p := f.pebble()
	d := newFullDisk(t)
	f.open(p, d.config)
	const have, fresh = "have-filling.blog." + domain, "fresh-filling.blog." + domain
	_, err := f.handshake(p, have)
	gatewaytest.Must(t, err)
	orders := p.Orders.Load()
	f.onChallenge(d.fill)
	if _, err := f.handshake(p, fresh); err == nil || p.Orders.Load() == orders {
		t.Errorf("%v, after %d orders", err, p.Orders.Load()-orders)
	}
	f.onChallenge(nil)
	if d.stored(t, have) != 3 || d.stored(t, fresh) != 0 {
		t.Errorf("%d and %d parts are stored, want 3 and 0", d.stored(t, have), d.stored(t, fresh))
	}
	d.empty(t)
	f.open(p, d.config) // as at the next start
	orders = p.Orders.Load()
	if _, err := f.handshake(p, have); err != nil || p.Orders.Load() != orders {
		t.Errorf("a name that had a certificate: %v, after %d orders", err, p.Orders.Load()-orders)
	}
	if _, err := f.handshake(p, fresh); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestFailedRenewalKeepsTheCertificate: certmagic writes the parts of a certificate one by one, and
// deletes the ones before the one that failed, which are the old certificate's too.
func TestFailedRenewalKeepsTheCertificate(t *testing.T) {
	site := []string{certmagic.StorageKeys.SitePrivateKey("ca", "x"), certmagic.StorageKeys.SiteCert("ca", "x"), certmagic.StorageKeys.SiteMeta("ca", "x")}
	for writes := range 4 {
		kv := &mapKV{}
		s := newStorage(kv)
		for _, key := range site {
			gatewaytest.Must(t, s.Store(t.Context(), key, []byte("old")))
		}
		kv.stopAfter(writes)
		for i, key := range site {
			if err := s.Store(t.Context(), key, []byte("new")); err != nil {
				for _, written := range site[:i] {
					s.Delete(t.Context(), written)
				}
				break
			}
		}
		var all []string
		for _, key := range site {
			value, err := s.Load(t.Context(), key)
			all = append(all, fmt.Sprintf("%s %v", value, err))
		}
		if all[0] != all[1] || all[1] != all[2] {
			t.Errorf("after %d writes: %q", writes, all)
		}
	}
}

// lockedBuffer is a log that the test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
