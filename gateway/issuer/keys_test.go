package issuer

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

// kid returns the key that signed a token.
func kid(tb testing.TB, token Token) string {
	tb.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token.JWT, ".")[0])
	gatewaytest.Must(tb, err)
	var header struct{ Kid string }
	gatewaytest.Must(tb, json.Unmarshal(raw, &header))
	return header.Kid
}

// kids returns the keys that are published.
func (s *site) kids(tb testing.TB) []string {
	tb.Helper()
	_, body := s.get(tb, http.MethodGet, keysPath)
	var set struct{ Keys []jwk }
	gatewaytest.Must(tb, json.Unmarshal([]byte(body), &set))
	var all []string
	for _, k := range set.Keys {
		all = append(all, k.Kid)
	}
	return all
}

// RFC 7638 §3.1.
func TestThumbprint(t *testing.T) {
	n, err := base64.RawURLEncoding.DecodeString("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn" +
		"jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4" +
		"vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw")
	gatewaytest.Must(t, err)
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
	if got := thumbprint(public); got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("got %s", got)
	}
}

// Over 100 days with a token every three hours, a key signs only once it has been published for a day, and is
// published until all its tokens have expired, and a day more.
func TestRotation(t *testing.T) {
	const pause = 3 * time.Hour
	dir := t.TempDir()
	s := newSite(t, dir)
	published := map[string]time.Time{} // since when
	expires := map[string]time.Time{}   // the last token of each key
	first := kid(t, s.issue(t, s.a))
	for end := s.clock.now().Add(100 * 24 * time.Hour); s.clock.now().Before(end); s.clock.add(pause) {
		now := s.clock.now()
		kids := s.kids(t)
		for _, k := range kids {
			if published[k].IsZero() {
				published[k] = now
			}
		}
		token, err := s.Issue(t.Context(), s.a, audience, time.Hour)
		gatewaytest.Must(t, err)
		k := kid(t, token)
		if !slices.Contains(kids, k) || k != first && now.Sub(published[k]) < lead-pause {
			t.Fatalf("%v: %s signs, published since %v", now, k, published[k])
		}
		expires[k] = token.Expires
		for k, at := range expires {
			if now.Before(at.Add(lead-pause)) && !slices.Contains(kids, k) {
				t.Fatalf("%v: %s is not published; its last token expired at %v", now, k, at)
			}
		}
		if len(kids) > 2 {
			t.Fatalf("%v: %d keys", now, len(kids))
		}
		s.Issuer = s.open(t, dir) // a restart changes nothing
	}
	if len(expires) != 4 {
		t.Errorf("%d keys in 100 days", len(expires))
	}
}

// A verifier that has cached the keys accepts tokens before, during and after the change.
func TestVerifierAcrossRotation(t *testing.T) {
	s := newSite(t, t.TempDir())
	verifier, ctx := s.relyingParty(t, audience)
	used := map[string]bool{}
	for range 33 * 8 {
		token := s.issue(t, s.a)
		if _, err := verifier.Verify(ctx, token.JWT); err != nil {
			t.Fatalf("%v: %v", s.clock.now(), err)
		}
		used[kid(t, token)] = true
		s.clock.add(3 * time.Hour)
	}
	if len(used) != 2 {
		t.Errorf("%d keys", len(used))
	}
}

// After months without a token, the old key signs until the new one has been published for a day.
func TestRotationAfterAPause(t *testing.T) {
	s := newSite(t, t.TempDir())
	first := kid(t, s.issue(t, s.a))
	s.clock.add(200 * 24 * time.Hour)
	if got := kid(t, s.issue(t, s.a)); got != first || len(s.kids(t)) != 2 {
		t.Errorf("%s signs, not %s; published: %v", got, first, s.kids(t))
	}
	s.clock.add(lead)
	if got := kid(t, s.issue(t, s.a)); got == first || len(s.kids(t)) != 2 {
		t.Errorf("%s signs; published: %v", got, s.kids(t))
	}
}

// A clock that is years ahead for a moment changes no key at once, and delays no later change.
func TestClockSteps(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	began := s.clock.now()
	first := kid(t, s.issue(t, s.a))
	s.clock.set(began.Add(4 * 365 * 24 * time.Hour))
	s.issue(t, s.a)
	for _, restart := range []bool{false, true} {
		s.clock.set(began.Add(time.Minute))
		if restart {
			s.Issuer = s.open(t, dir)
		}
		if got := kid(t, s.issue(t, s.a)); got != first {
			t.Errorf("restart %v: %s signs, not %s", restart, got, first)
		}
	}
	s.clock.add(lead + time.Minute)
	second := kid(t, s.issue(t, s.a))
	if second == first {
		t.Error("the new key waits for the time at which it was made")
	}
	s.clock.set(began.Add(-365 * 24 * time.Hour)) // to before the first key
	token := s.issue(t, s.a)
	if !token.Expires.Equal(s.clock.now().Add(DefaultLifetime)) || !slices.Contains(s.kids(t), kid(t, token)) {
		t.Errorf("%v", token.Expires)
	}
	s.clock.add(period + lead + time.Minute)
	s.issue(t, s.a)
	s.clock.add(lead)
	if third := kid(t, s.issue(t, s.a)); third == first || third == second {
		t.Error("no key was made since the clock was set back")
	}
}

// Set back to before both keys, a clock makes the old one sign: no cache has to have the new one yet.
func TestClockBeforeTheKeys(t *testing.T) {
	s := newSite(t, t.TempDir())
	first := kid(t, s.issue(t, s.a))
	s.clock.add(period)
	if s.issue(t, s.a); len(s.kids(t)) != 2 {
		t.Fatalf("published: %v", s.kids(t))
	}
	s.clock.add(-period - 2*lead)
	if got := kid(t, s.issue(t, s.a)); got != first {
		t.Errorf("%s signs, not %s", got, first)
	}
}

func TestKeysFile(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	first := kid(t, s.issue(t, s.a))
	file := filepath.Join(dir, keysFile)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left := filepath.Join(dir, ".new-123")
	gatewaytest.Must(t, os.WriteFile(left, []byte("["), 0o600))
	if got := kid(t, mustIssue(t, s.open(t, dir), s)); got != first {
		t.Errorf("after a restart %s signs, not %s", got, first)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("an unfinished file stays")
	}
	for _, damaged := range []string{"", "[]", "null", "{", `[{"signs":"2027-03-01T12:00:00Z"}]`} {
		gatewaytest.Must(t, os.WriteFile(file, []byte(damaged), 0o600))
		if _, err := New(s.Config); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}

func mustIssue(tb testing.TB, i *Issuer, s *site) Token {
	tb.Helper()
	token, err := i.Issue(tb.Context(), s.a, audience, 0)
	gatewaytest.Must(tb, err)
	return token
}

// While the disk is full, there is no first key, and an old one signs beyond its time. Then all goes
// on, with the key that was made meanwhile.
func TestFullDisk(t *testing.T) {
	disk := sandboxtest.SmallDisk(t, 64<<10)
	dir := filepath.Join(disk, "issuer")
	s := newSite(t, dir)
	fill := func() {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(disk, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		gatewaytest.Must(t, err)
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
	}
	fill()
	for range 3 {
		if _, err := s.Issue(t.Context(), s.a, audience, 0); err == nil {
			t.Fatal("a token without a key on disk")
		}
	}
	if resp, _ := s.get(t, http.MethodGet, keysPath); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if n := s.log.Count("signing keys not stored"); n != 1 {
		t.Errorf("%d attempts within %v", n, RetryAfter)
	}
	made := s.spare.id
	gatewaytest.Must(t, os.Remove(filepath.Join(disk, "filler")))
	s.clock.add(RetryAfter)
	if got := kid(t, s.issue(t, s.a)); got != made {
		t.Errorf("%s signs, not %s", got, made)
	}
	fill()
	s.clock.add(period)
	if got := kid(t, s.issue(t, s.a)); got != made || len(s.kids(t)) != 1 {
		t.Errorf("on a full disk %s signs, not %s; published: %v", got, made, s.kids(t))
	}
	gatewaytest.Must(t, os.Remove(filepath.Join(disk, "filler")))
	s.clock.add(RetryAfter)
	if s.issue(t, s.a); len(s.kids(t)) != 2 {
		t.Errorf("published: %v", s.kids(t))
	}
}

// TestKillDuringChanges ends a process again and again while it makes the first key, or rewrites the
// file. Each next one starts, and has the key of every token that was given away.
func TestKillDuringChanges(t *testing.T) {
	if dir := os.Getenv("LODGE_ISSUER_CHILD"); dir != "" {
		rewriteForEver(t, dir)
	}
	var dir, given string
	for round := range 20 {
		if round%5 == 0 {
			dir, given = t.TempDir(), ""
		}
		child := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestKillDuringChanges$")
		child.Env = append(os.Environ(), "LODGE_ISSUER_CHILD="+dir)
		out, err := child.StdoutPipe()
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, child.Start())
		for range round % 5 { // at another point of the work each time
			if _, err := fmt.Fscanln(out, &given); err != nil {
				t.Fatalf("round %d: the child ended: %v", round, err)
			}
		}
		gatewaytest.WaitFor(t, "a file in the directory", func() bool {
			entries, err := os.ReadDir(dir)
			return err == nil && len(entries) > 0
		})
		gatewaytest.Must(t, child.Process.Kill())
		_ = child.Wait() // killed
		keys, err := readKeys(dir)
		if err != nil || given != "" && !slices.ContainsFunc(keys, func(k key) bool { return k.id == given }) {
			t.Fatalf("round %d: %d keys, %v; given away: a token of %q", round, len(keys), err, given)
		}
	}
}

// rewriteForEver prints the key of each token that it issues, and rewrites the file all the time.
func rewriteForEver(t *testing.T, dir string) {
	t.Helper()
	s := newSite(t, dir)
	for {
		fmt.Println(kid(t, s.issue(t, s.a)))
		for range 20 {
			s.change.Lock()
			err := writeKeys(dir, s.keys)
			s.change.Unlock()
			gatewaytest.Must(t, err)
		}
		s.clock.add(time.Second)
	}
}
