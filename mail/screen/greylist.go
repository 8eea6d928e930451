package screen

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"lodge/gateway/durable"
)

// The times of RFC 6647 §5: how long a first attempt waits, how long its repetition may take, and
// how long a pair that has passed is known after its last message.
const (
	greyDelay  = 5 * time.Minute
	greyWindow = 24 * time.Hour
	greyLife   = 36 * 24 * time.Hour

	maxAttemptsPerNet = 256
	maxAttemptsAround = 1024
	maxAttempts       = 65_536
	maxPairs          = 100_000
	day               = 24 * time.Hour
)

// Early reports whether a message comes too early for one of its recipients: the same net, sender
// and recipient have not tried 5 minutes ago or before. If there is no room to note one of them, it
// does not: its repetition could not be recognized. Addresses are compared as they are.
func (s *Screen) Early(remote netip.Addr, from string, to []string, now time.Time) bool {
	if s.grey == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	net := netOf(remote)
	early, room := false, true
	for _, rcpt := range to {
		waits, noted := s.grey.early(net, pairOf(net, from, rcpt), now)
		early, room = early || waits, room && noted
	}
	if err := s.grey.save(now); err != nil { // after a restart the pair waits again
		s.logger.Warn("greylist not written", "err", err)
	}
	return early && room
}

// netOf is what counts as one client: its servers send by turns.
func netOf(remote netip.Addr) netip.Prefix {
	remote = remote.Unmap().WithZone("")
	bits := 64
	if remote.Is4() {
		bits = 24
	}
	net, _ := remote.Prefix(bits) // the zero Addr has the zero Prefix
	return net
}

// aroundOf is the net around one of netOf, which one stranger often has as a whole.
func aroundOf(net netip.Prefix) netip.Prefix {
	bits := 48
	if net.Addr().Is4() {
		bits = 16
	}
	around, _ := net.Addr().Prefix(bits) // as in netOf
	return around
}

// pair stands for a net, a sender and a recipient.
type pair [16]byte

func pairOf(net netip.Prefix, from, rcpt string) (p pair) {
	sum := sha256.Sum256([]byte(net.String() + "\n" + from + "\n" + rcpt))
	copy(p[:], sum[:])
	return p
}

// greylist has the first attempts in memory, and the pairs that have passed in a file too: a line
// for each pair and day on which it had a message, the day as a number. Lines are appended, without
// a sync: what a power failure takes waits again. The file is written anew, and synced, when it has
// twice the lines that it needs, and after a failure.
type greylist struct {
	file     string
	attempts map[netip.Prefix][]attempt // the oldest first
	around   map[netip.Prefix]int       // the net around a net → attempts of all nets in it
	count    int                        // of attempts
	swept    time.Time
	pairs    map[pair]int64 // → the last day
	lines    int            // in the file
	added    []pair         // not in the file yet
	rewrite  bool           // the file is missing, has lines that cannot be read, or lacks some
	failed   time.Time      // the last write; zero: it did not
}

type attempt struct {
	pair  pair
	first time.Time
}

func openGreylist(dir string) (*greylist, error) {
	g := &greylist{file: filepath.Join(dir, "pairs"), pairs: map[pair]int64{}}
	g.attempts, g.around = map[netip.Prefix][]attempt{}, map[netip.Prefix]int{}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of greylist: %w", err)
	}
	unfinished, _ := filepath.Glob(filepath.Join(dir, durable.TempPattern)) // the pattern is well formed
	for _, file := range unfinished {
		if err := os.Remove(file); err != nil {
			return nil, fmt.Errorf("remove unfinished file: %w", err)
		}
	}
	return g, g.read()
}

// read reads the file. A line that cannot be read, such as one that a crash has cut, is left out.
func (g *greylist) read() error {
	f, err := os.Open(g.file)
	if errors.Is(err, os.ErrNotExist) {
		g.rewrite = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("open greylist: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		text, number, _ := strings.Cut(lines.Text(), " ")
		key, err := hex.DecodeString(text)
		on, err2 := strconv.ParseInt(number, 10, 64)
		if err != nil || err2 != nil || len(key) != len(pair{}) {
			g.rewrite = true
			continue
		}
		g.lines++
		g.pairs[pair(key)] = max(g.pairs[pair(key)], on)
	}
	g.rewrite = g.rewrite || lines.Err() != nil
	return nil
}

func dayOf(t time.Time) int64 { return t.Unix() / int64(day/time.Second) }

// early decides on one pair, and notes the attempt. room is false if there is none for it.
func (g *greylist) early(net netip.Prefix, p pair, now time.Time) (early, room bool) {
	today := dayOf(now)
	if last, ok := g.pairs[p]; ok && today-last <= int64(greyLife/day) {
		if last < today {
			g.pass(p, today)
		}
		return false, true
	}
	tried := g.attempts[net]
	i := slices.IndexFunc(tried, func(a attempt) bool { return a.pair == p })
	switch {
	case i >= 0 && now.Sub(tried[i].first) > greyWindow:
		g.set(net, slices.Delete(tried, i, i+1))
	case i >= 0 && now.Sub(tried[i].first) < greyDelay:
		return true, true
	case i >= 0:
		g.set(net, slices.Delete(tried, i, i+1))
		g.pass(p, today)
		return false, true
	}
	room = g.begin(net, attempt{p, now})
	return room, room
}

// begin notes a first attempt. It is false where there is no room for it. Those that run are not
// displaced: a net with more pairs than fit would have each removed before its repetition.
func (g *greylist) begin(net netip.Prefix, a attempt) bool {
	around := aroundOf(net)
	full := func() bool { return g.around[around] >= maxAttemptsAround || g.count >= maxAttempts }
	if full() && a.first.Sub(g.swept) > time.Minute {
		g.swept = a.first
		for net := range maps.Clone(g.attempts) {
			g.sweep(net, a.first)
		}
	}
	if len(g.attempts[net]) >= maxAttemptsPerNet {
		g.sweep(net, a.first)
	}
	if len(g.attempts[net]) >= maxAttemptsPerNet || full() {
		return false
	}
	g.set(net, append(g.attempts[net], a))
	return true
}

// sweep removes the attempts of a net that have run out.
func (g *greylist) sweep(net netip.Prefix, now time.Time) {
	g.set(net, slices.DeleteFunc(g.attempts[net], func(a attempt) bool { return now.Sub(a.first) > greyWindow }))
}

// set replaces the attempts of a net.
func (g *greylist) set(net netip.Prefix, tried []attempt) {
	around, more := aroundOf(net), len(tried)-len(g.attempts[net])
	g.count += more
	if g.around[around] += more; g.around[around] == 0 {
		delete(g.around, around)
	}
	if g.attempts[net] = tried; len(tried) == 0 {
		delete(g.attempts, net)
	}
}

// pass notes that a pair has a message today.
func (g *greylist) pass(p pair, today int64) {
	g.pairs[p] = today
	g.added = append(g.added, p)
	if len(g.pairs) <= maxPairs {
		return
	}
	days := slices.Sorted(maps.Values(g.pairs))
	before, excess := days[len(days)/10], len(days)/10
	for p, on := range g.pairs {
		if on <= before && excess > 0 && on < today {
			delete(g.pairs, p)
			excess--
		}
	}
	for p := range g.pairs { // as many as are of today
		if len(g.pairs) <= maxPairs-maxPairs/10 {
			break
		}
		delete(g.pairs, p)
	}
	g.rewrite = true
}

// save writes what has changed. After a failure, which a full disk makes of each message, it tries
// again after a minute, with all that is in memory, and returns the first failure of several alone.
func (g *greylist) save(now time.Time) error {
	failing := !g.failed.IsZero()
	switch {
	case failing && now.Sub(g.failed) < time.Minute:
		g.added = nil
		return nil
	case !failing && len(g.added) == 0:
		return nil
	}
	err := g.write(now)
	g.added = nil
	if err == nil {
		g.failed = time.Time{}
		return nil
	}
	g.failed, g.rewrite = now, true
	if failing {
		return nil
	}
	return err
}

// write appends what has changed, or writes the file anew.
func (g *greylist) write(now time.Time) error {
	if g.rewrite || g.lines >= 2*max(len(g.pairs), 1000) {
		maps.DeleteFunc(g.pairs, func(_ pair, on int64) bool { return dayOf(now)-on > int64(greyLife/day) })
		if err := durable.WriteFile(g.file, format(g.pairs), 0o600); err != nil {
			return err
		}
		g.lines, g.rewrite = len(g.pairs), false
		return nil
	}
	text := map[pair]int64{}
	for _, p := range g.added {
		text[p] = g.pairs[p]
	}
	f, err := os.OpenFile(g.file, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.Write(format(text))
		err = errors.Join(err, f.Close())
	}
	g.lines += len(text)
	if err != nil {
		return fmt.Errorf("append to greylist: %w", err)
	}
	return nil
}

func format(pairs map[pair]int64) []byte {
	var b []byte
	for p, on := range pairs {
		b = hex.AppendEncode(b, p[:])
		b = append(strconv.AppendInt(append(b, ' '), on, 10), '\n')
	}
	return b
}
