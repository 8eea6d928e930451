package https

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https/quota"
)

// A request that waits for its VM is one under way: a visitor at the limit wakes no VM.
func TestHeldRequestsAreCounted(t *testing.T) {
	blog := publicVM("blog")
	blog.Desired, blog.WakeOnRequest = gateway.Stopped, true
	// fill makes requests of a visitor until it gets no more, and returns how many.
	fill := func(s *Server, from string) (n int) {
		who := quota.Visitor{Peer: gateway.PeerAt(netip.MustParseAddr(from))}
		for over := quota.None; over == quota.None; n++ {
			_, over = s.quota.Enter(blog.ID, who)
		}
		return n
	}
	var s *Server
	var held, wakes int
	s, err := New(withPeople(t, Config{
		Domain: "lodge.localhost", Port: 443, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), HoldTime: time.Hour,
		Directory: gatewaytest.NewDirectory(t, new(gatewaytest.Records), blog),
		Wake: func(context.Context, gateway.ID) error {
			wakes++
			held = fill(s, "192.0.2.1")
			return errors.New("no room")
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) }) // it serves nothing
	get := func(from string) int {
		r, w := request(t, http.MethodGet, "blog", nil), httptest.NewRecorder()
		r.RemoteAddr = from
		s.serveWeb(w, r)
		return w.Code
	}
	if got := get("192.0.2.1:1"); got != http.StatusServiceUnavailable || wakes != 1 {
		t.Fatalf("%d after %d wakes", got, wakes)
	}
	if free := fill(s, "192.0.2.2"); held != free-1 {
		t.Errorf("beside a held request %d fit, without one %d", held, free)
	}
	if got := get("192.0.2.2:1"); got != http.StatusTooManyRequests || wakes != 1 {
		t.Errorf("over the limit: %d after %d wakes", got, wakes)
	}
}
