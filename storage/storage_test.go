package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	hoststore "lodge/gateway/store"
)

// host is a storage service with VMs, each of which reaches it over a listener that stands for its
// tap.
type host struct {
	*Server
	t         testing.TB
	dir       string
	directory *gateway.Directory
	people    *people.Book
	keyring   *gateway.Keyring
}

// guest is one VM's view of the service.
type guest struct {
	gateway.Identity
	host *host
	url  string // http://127.0.0.1:port
}

func newHost(tb testing.TB) *host {
	tb.Helper()
	return newHostIn(tb, tb.TempDir())
}

func newHostIn(tb testing.TB, dir string) *host {
	tb.Helper()
	return newHostWith(tb, func(c *Config) { c.Dir = dir })
}

func newHostWith(tb testing.TB, change func(*Config)) *host {
	tb.Helper()
	directory, err := gateway.OpenDirectory(tb.Context(), new(gatewaytest.Records))
	if err != nil {
		tb.Fatal(err)
	}
	keyring := gateway.NewKeyring([32]byte{1, 2, 3}, directory)
	log := slog.New(slog.NewTextHandler(testWriter{tb}, nil))
	known := book(tb)
	cfg := Config{Dir: tb.TempDir(), Keyring: keyring, Directory: directory, People: known, Outside: "s3.lodge.localhost", Logger: log}
	change(&cfg)
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("run: %v", err)
		}
	})
	return &host{Server: s, t: tb, dir: cfg.Dir, people: known, directory: directory, keyring: keyring}
}

// book has the host's owner alone.
func book(tb testing.TB) *people.Book {
	tb.Helper()
	db, err := hoststore.Open(tb.Context(), filepath.Join(tb.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(tb, err)
	tb.Cleanup(func() { gatewaytest.Must(tb, db.Close()) })
	known, err := people.Open(tb.Context(), db.Shared(), "owner@lodge.localhost")
	gatewaytest.Must(tb, err)
	return known
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// guest makes a VM with a tap.
func (h *host) guest(name string) guest {
	h.t.Helper()
	m, err := h.directory.Create(h.t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running})
	if err != nil {
		h.t.Fatal(err)
	}
	return guest{Identity: m.Identity, host: h, url: h.listen(m.Identity)}
}

// listen serves on a port where every connection is vm's; the zero VM stands for the host's own
// listener.
func (h *host) listen(vm gateway.Identity) string { return h.serve(h.Handler(), vm) }

func (h *host) serve(handler http.Handler, vm gateway.Identity) string {
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return gateway.WithVM(ctx, vm) }
	srv.Start()
	h.t.Cleanup(srv.Close)
	return srv.URL
}

// markRemoved marks the VM's record as vmhost does before a removal.
func (g guest) markRemoved(tb testing.TB) {
	tb.Helper()
	if _, err := g.host.directory.Update(tb.Context(), g.ID, func(m *gateway.VM) error {
		m.Desired = gateway.Removed
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
}

// minted are the guest's instance credentials.
func (g guest) minted() gateway.Credentials {
	g.host.t.Helper()
	c, err := g.host.keyring.Issue(g.ID, time.Now())
	if err != nil {
		g.host.t.Fatal(err)
	}
	return c
}

// client is a minio-go client at url with the given keys.
func client(tb testing.TB, url, access, secret string) *minio.Client {
	tb.Helper()
	c, err := minio.New(strings.TrimPrefix(url, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(access, secret, ""), Region: "eu-north-1",
		BucketLookup: minio.BucketLookupPath, MaxRetries: 1,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func (g guest) dummy() *minio.Client { return client(g.host.t, g.url, "dummy", "dummysecret") }

func (g guest) keyed() *minio.Client {
	c := g.minted()
	return client(g.host.t, g.url, c.AccessKey, c.SecretKey)
}

func put(tb testing.TB, c *minio.Client, bucket, key string, data []byte) minio.UploadInfo {
	tb.Helper()
	info, err := c.PutObject(tb.Context(), bucket, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
	if err != nil {
		tb.Fatalf("put %s/%s: %v", bucket, key, err)
	}
	return info
}

func get(tb testing.TB, c *minio.Client, bucket, key string) []byte {
	tb.Helper()
	o, err := c.GetObject(tb.Context(), bucket, key, minio.GetObjectOptions{})
	if err != nil {
		tb.Fatalf("get %s/%s: %v", bucket, key, err)
	}
	data, err := io.ReadAll(o)
	if err != nil {
		tb.Fatalf("get %s/%s: %v", bucket, key, err)
	}
	return data
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return b
}

func wantCode(tb testing.TB, err error, code string, status int) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("want %s, got no error", code)
	}
	if e := minio.ToErrorResponse(err); e.Code != code || e.StatusCode != status && status != 0 {
		tb.Fatalf("want %s (%d), got %s (%d): %s", code, status, e.Code, e.StatusCode, e.Message)
	}
}

func TestFirstPut(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	for name, c := range map[string]*minio.Client{"dummy": g.dummy(), "minted": g.keyed()} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{0, 1, 5, 100_000, 3 << 20} {
				data := random(size)
				put(t, c, "any-"+name, "dir/f", data)
				if got := get(t, c, "any-"+name, "dir/f"); !bytes.Equal(got, data) {
					t.Fatalf("size %d: got %d other bytes", size, len(got))
				}
			}
		})
	}
}
