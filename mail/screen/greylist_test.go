package screen

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

func delaying(tb testing.TB, dir string) *Screen {
	tb.Helper()
	s, err := New(Config{Greylist: true}, dir, slog.New(slog.DiscardHandler))
	gatewaytest.Must(tb, err)
	return s
}

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// A pair waits until it is repeated in time, from the same net; then it is known, over restarts,
// while it writes.
func TestEarly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := delaying(t, dir)
	for _, step := range []struct {
		what, remote, from, to string
		after                  time.Duration // noon
		early                  bool
	}{
		{"the first attempt", "192.0.2.1", "a@x", "b@y", 0, true},
		{"too soon", "192.0.2.1", "a@x", "b@y", 4 * time.Minute, true},
		{"another recipient", "192.0.2.1", "a@x", "c@y", 5 * time.Minute, true},
		{"another sender", "192.0.2.1", "d@x", "b@y", 5 * time.Minute, true},
		{"another net", "192.0.3.1", "a@x", "b@y", 5 * time.Minute, true},
		{"in time, from its net", "192.0.2.200", "a@x", "b@y", 5 * time.Minute, false},
		{"known", "192.0.2.1", "a@x", "b@y", 6 * time.Minute, false},
		{"known for weeks", "192.0.2.1", "a@x", "b@y", 35 * day, false},
		{"known from then on", "192.0.2.1", "a@x", "b@y", 70 * day, false},
		{"out of date", "192.0.2.1", "a@x", "b@y", 107 * day, true},
		{"a window", "2001:db8::1", "", "b@y", 200 * day, true},
		{"too late", "2001:db8::1", "", "b@y", 202 * day, true},
		{"a second window, from its net", "2001:db8::2:3", "", "b@y", 202*day + time.Hour, false},
		{"from a net beside it", "2001:db8:0:1::1", "", "b@y", 202*day + time.Hour, true},
	} {
		if got := s.Early(netip.MustParseAddr(step.remote), step.from, []string{step.to}, noon.Add(step.after)); got != step.early {
			t.Errorf("%s: early is %v", step.what, got)
		}
		next := delaying(t, dir) // a restart takes the attempts alone
		next.grey.attempts, next.grey.around, next.grey.count = s.grey.attempts, s.grey.around, s.grey.count
		s = next
	}
}

// All recipients of one message become due together, and a message that has none is never early.
func TestEarlyForSome(t *testing.T) {
	t.Parallel()
	s, remote := delaying(t, t.TempDir()), netip.MustParseAddr("192.0.2.1")
	early := func(after time.Duration, to ...string) bool { return s.Early(remote, "a@x", to, noon.Add(after)) }
	if !early(0, "b@y") || !early(10*time.Minute, "b@y", "c@y") || early(20*time.Minute, "b@y", "c@y") || early(0) {
		t.Error("some recipients are decided on wrongly")
	}
	if off := (&Screen{}); off.Early(remote, "a@x", []string{"b@y"}, noon) {
		t.Error("early without greylisting")
	}
}

// Where there is no room for a further attempt mail is not delayed, and no attempt is displaced.
func TestManyAttempts(t *testing.T) {
	t.Parallel()
	s := delaying(t, t.TempDir())
	try := func(net, sender int, at time.Time) bool {
		remote := netip.AddrFrom4([4]byte{byte(1 + net>>10), byte(net >> 2), byte(net & 3), 1}) // four in a /16
		return s.Early(remote, fmt.Sprint(sender), []string{"b@y"}, at)
	}
	later := noon.Add(greyDelay)
	try(0, 0, noon)
	for i := range maxAttemptsPerNet {
		try(1, i, noon)
	}
	if try(1, maxAttemptsPerNet, noon) {
		t.Error("delayed, but not noted")
	}
	if try(0, 0, later) || try(1, 0, later) || !try(1, maxAttemptsPerNet, later) {
		t.Error("an attempt has displaced another one, or is not noted where there is room again")
	}
	if !try(1, maxAttemptsPerNet+1, noon.Add(greyWindow+time.Second)) {
		t.Error("the attempts of a net do not run out")
	}
	for i := range maxAttempts {
		try(2+i/maxAttemptsPerNet, i, noon)
	}
	if s.grey.count != maxAttempts || try(1000, 0, later) {
		t.Errorf("%d attempts, or mail is delayed where there is no room", s.grey.count)
	}
	if !try(1000, 0, noon.Add(greyWindow+time.Hour)) || s.grey.count > maxAttemptsPerNet {
		t.Errorf("%d attempts after all ran out", s.grey.count)
	}
}

// Whoever has all nets around its own turns greylisting off for those alone.
func TestManyNets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		around, beside string
		last           int // byte of a net
	}{{"2001:db8:1::1", "2001:db8:2::1", 7}, {"198.18.0.1", "198.19.0.1", 2}} {
		s := delaying(t, t.TempDir())
		try := func(net, sender int, at time.Time) bool {
			b := netip.MustParseAddr(tt.around).AsSlice()
			b[tt.last] = byte(net)
			remote, _ := netip.AddrFromSlice(b) // as long as it was
			return s.Early(remote, fmt.Sprint(sender), []string{"b@y"}, at)
		}
		for i := range maxAttempts {
			if delayed := try(i%256, i, noon); delayed != (i < maxAttemptsAround) {
				t.Fatalf("%s: attempt %d is delayed: %v", tt.around, i, delayed)
			}
		}
		if !s.Early(netip.MustParseAddr(tt.beside), "a@x", []string{"b@y"}, noon) {
			t.Errorf("%s: greylisting is off beside it", tt.around)
		}
		later := noon.Add(greyDelay)
		if try(0, 0, later) || !try(0, maxAttempts, later) || try(0, maxAttempts+1, later) {
			t.Errorf("%s: an attempt was displaced, or there is other room than that of one that has passed", tt.around)
		}
		if !try(0, maxAttempts+1, noon.Add(greyWindow+time.Hour)) || s.grey.count != 1 || len(s.grey.around) != 1 {
			t.Errorf("%s: %d attempts in %d nets around after all ran out", tt.around, s.grey.count, len(s.grey.around))
		}
	}
}

// A server that sends more than its net has room for is not delayed for ever.
func TestManyRecipients(t *testing.T) {
	t.Parallel()
	s, remote := delaying(t, t.TempDir()), netip.MustParseAddr("192.0.2.1")
	var delayed [][]string
	for message := range 3 {
		var to []string
		for i := range 100 {
			to = append(to, fmt.Sprintf("%d@%d", i, message))
		}
		if s.Early(remote, "a@x", to, noon) {
			delayed = append(delayed, to)
		}
	}
	if len(delayed) != 2 { // the third one has no room
		t.Errorf("%d messages were delayed", len(delayed))
	}
	for i, to := range delayed {
		if s.Early(remote, "a@x", to, noon.Add(6*time.Minute)) {
			t.Errorf("message %d is delayed again", i)
		}
	}
}

// The pairs have a bound, in memory and in the file, and a file that was cut is read as far as it
// goes.
func TestManyPairs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := delaying(t, dir)
	numbered := func(i int) pair { return pair{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range maxPairs + 1 {
		s.grey.pass(numbered(i), dayOf(noon)+int64(i/(maxPairs/2)))
	}
	gatewaytest.Must(t, s.grey.save(noon))
	if _, old := s.grey.pairs[numbered(maxPairs)]; !old || len(s.grey.pairs) > maxPairs || len(s.grey.pairs) < maxPairs*8/10 {
		t.Errorf("%d pairs, the newest is kept: %v", len(s.grey.pairs), old)
	}
	for i := range 3 * maxPairs { // all of one day
		s.grey.pass(numbered(i+maxPairs), dayOf(noon)+9)
	}
	gatewaytest.Must(t, s.grey.save(noon))
	file := filepath.Join(dir, "pairs")
	text, err := os.ReadFile(file)
	gatewaytest.Must(t, err)
	if len(s.grey.pairs) > maxPairs || len(text) > maxPairs*50 {
		t.Errorf("%d pairs in %d bytes", len(s.grey.pairs), len(text))
	}
	gatewaytest.Must(t, os.WriteFile(file, append(text[:len(text)-5], "\nzz 1\n0102 x\n\xff"...), 0o600))
	if again := delaying(t, dir); len(again.grey.pairs) != len(s.grey.pairs) && len(again.grey.pairs) != len(s.grey.pairs)-1 {
		t.Errorf("%d pairs of %d after a cut", len(again.grey.pairs), len(s.grey.pairs))
	}
}

// A directory that cannot be written to is tried once a minute, and logged once; then all that has
// passed is in the file.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir, log := filepath.Join(t.TempDir(), "grey"), new(gatewaytest.Log)
	s, err := New(Config{Greylist: true}, dir, log.Logger())
	gatewaytest.Must(t, err)
	pass := func(sender int, at time.Time) bool {
		from, to := fmt.Sprint(sender), []string{"b@y"}
		s.Early(netip.MustParseAddr("192.0.2.1"), from, to, at.Add(-greyDelay))
		return !s.Early(netip.MustParseAddr("192.0.2.1"), from, to, at)
	}
	inFile := func() int { return len(delaying(t, dir).grey.pairs) }
	if !pass(0, noon) || inFile() != 1 {
		t.Fatal("the first pair is not in the file")
	}
	gatewaytest.Must(t, os.RemoveAll(dir))
	for i := range 200 { // more than three attempts to write
		if at := noon.Add(time.Duration(i) * time.Second); !pass(1+i, at) || len(s.grey.added) > 0 {
			t.Fatalf("pair %d is delayed, or kept twice", i)
		}
	}
	gatewaytest.Must(t, os.Mkdir(dir, 0o700))
	last := s.grey.failed
	if pass(300, last.Add(time.Minute-1)); inFile() != 0 {
		t.Error("tried again within a minute")
	}
	if pass(301, last.Add(time.Minute)); inFile() != 203 || log.Count("greylist not written") != 1 {
		t.Errorf("%d pairs are in the file; %s", inFile(), log)
	}
	if pass(302, last.Add(2*time.Minute)); inFile() != 204 {
		t.Error("nothing is written after a failure that has ended")
	}
}
