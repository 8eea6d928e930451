package https

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/https/conns"
	"lodge/https/quota"
)

func TestOneVMLeavesRoomForOthers(t *testing.T) {
	s := newServer(t, func(context.Context, gateway.VM, uint16) (net.Conn, error) { return nil, syscall.ECONNREFUSED })
	get := func(vm string) int {
		w := httptest.NewRecorder()
		s.serveWeb(w, request(t, http.MethodGet, vm, nil))
		return w.Code
	}
	blog, _ := s.Directory.ByName("blog")
	var leave func()
	for over := quota.None; over != quota.OfVM; {
		var next func()
		if next, over = s.quota.Enter(blog.ID, quota.Visitor{Person: rand.Text()}); next != nil {
			leave = next
		}
	}
	if busy, other := get("blog"), get("shop"); busy != http.StatusServiceUnavailable || other != http.StatusBadGateway {
		t.Errorf("blog at its limit: %d; shop: %d", busy, other)
	}
	leave()
	if after := get("blog"); after != http.StatusBadGateway {
		t.Errorf("a place that was given back is lost: %d", after)
	}
}

// One visitor's crowd of requests gets 429, and opens the other VM's page.
func TestOneVisitorIsRefusedByOneVM(t *testing.T) {
	s := newServer(t, func(context.Context, gateway.VM, uint16) (net.Conn, error) { return nil, syscall.ECONNREFUSED })
	blog, _ := s.Directory.ByName("blog")
	greedy := quota.Visitor{Peer: gateway.PeerAt(netip.MustParseAddr("192.0.2.1"))} // that of httptest
	for over := quota.None; over == quota.None; {
		_, over = s.quota.Enter(blog.ID, greedy)
	}
	for _, tt := range []struct {
		vm, from string
		want     int
	}{
		{"blog", "192.0.2.1:1", http.StatusTooManyRequests},
		{"blog", "192.0.2.2:1", http.StatusBadGateway},
		{"shop", "192.0.2.1:1", http.StatusBadGateway},
	} {
		r, w := request(t, http.MethodGet, tt.vm, nil), httptest.NewRecorder()
		r.RemoteAddr = tt.from
		s.serveWeb(w, r)
		if w.Code != tt.want || (tt.want == http.StatusTooManyRequests) != (w.Header().Get("Retry-After") == "10") {
			t.Errorf("%s from %s: %d, Retry-After %q", tt.vm, tt.from, w.Code, w.Header().Get("Retry-After"))
		}
	}
}

// The error of a slow body reaches the page through the transport to the VM.
func TestSlowBodyIsExplained(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer app.Close()
	s := newServer(t, func(ctx context.Context, _ gateway.VM, _ uint16) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", app.Listener.Addr().String())
	})
	r := request(t, http.MethodPost, "blog", io.MultiReader(strings.NewReader("part"), iotest.ErrReader(conns.ErrSlow)))
	w := httptest.NewRecorder()
	s.serveWeb(w, r)
	if w.Code != http.StatusRequestTimeout {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
}

// withPeople adds a Book, which has the owner alone, to cfg.
func withPeople(t *testing.T, cfg Config) Config {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the test is over
	if cfg.People, err = people.Open(t.Context(), db.Shared(), "owner@lodge.localhost"); err != nil {
		t.Fatal(err)
	}
	if cfg.Requests, err = people.OpenRequests(t.Context(), db.Shared(), time.Now); err != nil {
		t.Fatal(err)
	}
	cfg.Logins, cfg.Sessions, cfg.Passkeys, cfg.Kept = db.Logins(), db.WebSessions(), db.Passkeys(), db
	return cfg
}

// newServer is a Server, which serves nothing, for the public VMs "blog" and "shop".
func newServer(t *testing.T, dial func(context.Context, gateway.VM, uint16) (net.Conn, error)) *Server {
	t.Helper()
	vms := gatewaytest.NewDirectory(t, new(gatewaytest.Records), publicVM("blog"), publicVM("shop"))
	s, err := New(withPeople(t, Config{
		Domain: "lodge.localhost", Port: 443, Dir: t.TempDir(), Directory: vms, Logger: slog.New(slog.DiscardHandler), Dial: dial,
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) }) // it serves nothing
	return s
}

// request is one for a VM's plain name.
func request(t *testing.T, method, vm string, body io.Reader) *http.Request {
	t.Helper()
	host := vm + ".lodge.localhost"
	r := httptest.NewRequestWithContext(t.Context(), method, "https://"+host+"/", body)
	r.TLS = &tls.ConnectionState{ServerName: host}
	return r
}

// publicVM is a running VM whose plain name anyone may open.
func publicVM(name string) gateway.VM {
	return gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running,
		Shares: []gateway.Share{{Port: gateway.DefaultPort, Visibility: gateway.Public}},
	}
}
