package engine

import (
	"hash/fnv"
	"sync"
)

// stripes are locks by name; two names may share one.
type stripes [64]sync.RWMutex

func (s *stripes) of(name string) *sync.RWMutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash cannot fail
	return &s[h.Sum32()%uint32(len(s))]
}
