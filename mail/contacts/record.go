package contacts

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"lodge/gateway/durable"
)

// record is what one file has.
type record struct {
	file string

	mu     sync.Mutex
	read   bool
	gone   bool
	last   map[string]int64 // address → day on which it wrote last
	lines  int              // in the file
	broken bool             // the file may end amid a line: the next write replaces it
}

// add records an address for a day.
func (r *record) add(address string, today int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return err
	}
	if last, ok := r.last[address]; ok && last >= today {
		return nil
	}
	next := maps.Clone(r.last)
	next[address] = today
	trim(next, today)
	if err := r.write(next, line(address, today)); err != nil {
		r.broken = true
		return err
	}
	r.last = next
	return nil
}

// has reports whether an address wrote in the last days.
func (r *record) has(address string, today int64) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return false, fmt.Errorf("read contacts: %w", err)
	}
	last, ok := r.last[address]
	return ok && fresh(last, today), nil
}

// end keeps the file from being written again.
func (r *record) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
}

func fresh(last, today int64) bool { return today-last <= int64(Life/day) }

// load reads the file once. The caller holds r.mu.
func (r *record) load() error {
	if r.gone {
		return errGone()
	}
	if r.read {
		return nil
	}
	text, err := os.ReadFile(r.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err //nolint:wrapcheck // the callers add what it was for
	}
	r.last, r.lines, r.broken = parse(text)
	r.broken = r.broken || err != nil // there is no file to append to
	r.read = true
	return nil
}

// parse reads a file. broken: it has lines that cannot be read, or does not end in a line end.
func parse(text []byte) (last map[string]int64, lines int, broken bool) {
	last = map[string]int64{}
	for one := range bytes.SplitAfterSeq(text, []byte("\n")) {
		if len(one) == 0 {
			continue
		}
		date, address, _ := strings.Cut(strings.TrimSuffix(string(one), "\n"), " ")
		at, err := time.Parse(time.DateOnly, date)
		if err != nil || !strings.Contains(address, "@") || !bytes.HasSuffix(one, []byte("\n")) {
			broken = true
			continue
		}
		lines++
		last[address] = max(last[address], number(at))
	}
	return last, lines, broken
}

func line(address string, on int64) string {
	return time.Unix(on*int64(day/time.Second), 0).UTC().Format(time.DateOnly) + " " + address + "\n"
}

// write brings the file to what next is, of which one line is new. The caller holds r.mu.
func (r *record) write(next map[string]int64, added string) error {
	if r.broken || r.lines >= 2*max(len(next), 100) {
		if err := durable.WriteFile(r.file, format(next), 0o600); err != nil {
			return err
		}
		r.lines, r.broken = len(next), false
		return nil
	}
	f, err := os.OpenFile(r.file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err //nolint:wrapcheck // Wrote adds what it was for
	}
	_, err = f.WriteString(added)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	r.lines++
	return nil
}

// format writes all lines, the newest last.
func format(last map[string]int64) []byte {
	addresses := slices.Sorted(maps.Keys(last))
	slices.SortStableFunc(addresses, func(a, b string) int { return int(last[a] - last[b]) })
	var b bytes.Buffer
	for _, address := range addresses {
		b.WriteString(line(address, last[address]))
	}
	return b.Bytes()
}

// trim removes what is out of date, and then addresses of the domain that has the most until there are no
// more than maxContacts.
func trim(last map[string]int64, today int64) {
	if len(last) <= maxContacts {
		return
	}
	maps.DeleteFunc(last, func(_ string, on int64) bool { return !fresh(on, today) })
	for len(last) > maxContacts {
		delete(last, oldest(last, largest(last)))
	}
}

// largest returns the domain with the most addresses; of several the first by name.
func largest(last map[string]int64) string {
	counts := map[string]int{}
	for address := range last {
		counts[domainOf(address)]++
	}
	best := ""
	for domain, n := range counts {
		if most := counts[best]; n > most || n == most && domain < best {
			best = domain
		}
	}
	return best
}

// oldest returns the address of a domain that wrote the longest ago; of several the first by name.
func oldest(last map[string]int64, domain string) string {
	found := ""
	for address, on := range last {
		if domainOf(address) != domain {
			continue
		}
		if found == "" || on < last[found] || on == last[found] && address < found {
			found = address
		}
	}
	return found
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }
