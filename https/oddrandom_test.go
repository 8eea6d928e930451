package https_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The parts that random requests are made of, beside those of the table.
var oddParts = []string{
	"\r\n", "\n", "\r", "\r\n ", "\r\n\r\n", " ", "\t", ":", ",", ";", "#", "?", "/", "*", "\x00", "\x0b", "\x7f", "\xff", "%0d%0a", "0", "5", "+", "-", "0x", "g",
	"Content-Length: 5\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Connection: Host\r\n",
	"Host: shop.lodge.localhost\r\n", "X-Lodge-User: evil\r\n", "x_lodge_user: evil\r\n", "Expect: 100-continue\r\n", "Upgrade: h2c\r\n", "Trailer: X-Lodge-User\r\n",
	"0\r\n\r\n", "5\r\nabcde\r\n", "chunked", "HTTP/1.0", "HTTP/1.1", "https://blog.lodge.localhost", evil,
}

// oddAtRandom changes a request of the table in up to three places.
func oddAtRandom(r *rand.Rand, table []odd) string {
	b := table[r.IntN(len(table))].bytes
	for range 1 + r.IntN(3) {
		from := r.IntN(len(b) + 1)
		to := min(len(b), from+r.IntN(2)*r.IntN(8))
		b = b[:from] + oddParts[r.IntN(len(oddParts))] + b[to:]
	}
	return b
}

// TestRandomOddRequests: whatever a client sends, the guest sees well-formed requests alone, one for
// each answer, and none of it on the connection's later requests. The flag -odd makes more of them.
func TestRandomOddRequests(t *testing.T) {
	t.Parallel()
	s := newOddSite(t)
	n, seed := 100, uint64(1)
	if *oddRandom > 0 {
		n, seed = *oddRandom, uint64(time.Now().UnixNano())
		s.nginx = startNginx(t, newRecorder(t).addr)
	}
	t.Logf("%d requests of seed %d", n, seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test that can be repeated
	table := slices.DeleteFunc(oddRequests(), func(o odd) bool { return len(o.bytes) > 4<<10 })
	for range n {
		request := oddAtRandom(random, table)
		for _, road := range oddRoads {
			s.checkRandom(t, request, road)
		}
		if t.Failed() {
			break
		}
	}
	s.checkEnd(t)
}

func (s *oddSite) checkRandom(t *testing.T, request, road string) {
	t.Helper()
	const patience = 300 * time.Millisecond // many requests are incomplete: their connections wait for more
	filled := s.fill(request, road)
	before := len(s.guest.since(0))
	s.ordinary(t, road, "/before")
	got, apps := s.send(s.addr, filled, false, patience)
	s.ordinary(t, road, "/after")
	saw := s.guest.since(before)
	var targets []string
	for _, r := range saw {
		person := []string{owner}
		if !slices.Equal(r.values("x-lodge-user"), person) { // the cookie was changed
			person = nil
		}
		if err := r.wellFormed(person); err != nil {
			t.Errorf("%v: the guest saw %q of %q", err, r, filled)
		}
		targets = append(targets, r.target)
	}
	want := slices.Concat([]string{"/before"}, apps, []string{"/after"})
	if !slices.Equal(targets, want) && !strings.Contains(got, "timeout") {
		t.Errorf("the guest saw %q, the client got answers to %q, after %q", targets, want, filled)
	}
	for _, addr := range []string{s.std, s.nginx} {
		if addr == "" {
			continue
		}
		other, _ := s.send(addr, filled, false, patience)
		if passes(got) <= passes(other) || strings.Contains(other, "timeout") {
			return
		}
	}
	t.Errorf("lodged is laxer (%s) than the others, for %q", got, filled)
}
