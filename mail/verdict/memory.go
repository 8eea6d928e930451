package verdict

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Limits of a memory.
const (
	maxKnown      = 4096
	maxKnownBytes = 4 << 10 // of one answer
	maxAge        = 5 * time.Minute
	minAge        = 5 * time.Second // and of an answer without records
)

// memory has answers until their TTL ends. It is safe for concurrent use.
type memory struct {
	mu    sync.Mutex
	known map[question]answer
}

type answer struct {
	records []dns.RR // read-only
	until   time.Time
}

func (m *memory) get(q question) ([]dns.RR, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.known[q]
	return a.records, ok && time.Now().Before(a.until)
}

// put keeps an answer of so many bytes. When there is no room, all are dropped.
func (m *memory) put(q question, records []dns.RR, bytes int) {
	if bytes > maxKnownBytes {
		return
	}
	age := maxAge
	for _, rr := range records {
		age = min(age, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if len(records) == 0 {
		age = minAge
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= maxKnown {
		clear(m.known)
	}
	m.known[q] = answer{records, time.Now().Add(max(age, minAge))}
}
