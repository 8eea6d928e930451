package store

import (
	"sync"
	"time"
)

const (
	recentChunks = 4096        // at most, of 1 MiB each
	recentFor    = time.Minute // after that a chunk is compared again
)

// recent has the chunks of files that a reader has just compared with their checksums, so that a body that many ask for
// is not compared for each of them. A file that was written to since has another time of its last change, and is
// compared at once. Each chunk has one place, which another one may take.
type recent struct {
	mu     sync.Mutex
	places [recentChunks]compared
}

type compared struct {
	id      uint64
	chunk   int
	changed int64 // of the file, in nanoseconds
	at      int64 // in nanoseconds
}

func (r *recent) place(id uint64, chunk int) *compared {
	return &r.places[(id*31+uint64(chunk))%recentChunks] //nolint:gosec // a chunk's number is not negative
}

// add remembers that a chunk was found to be good.
func (r *recent) add(id uint64, chunk int, changed int64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*r.place(id, chunk) = compared{id, chunk, changed, now.UnixNano()}
}

// has reports whether a chunk was found to be good within recentFor.
func (r *recent) has(id uint64, chunk int, changed int64, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := *r.place(id, chunk)
	age := time.Duration(now.UnixNano() - c.at)
	return c.id == id && c.chunk == chunk && c.changed == changed && age >= 0 && age < recentFor
}
