package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// options are Pebble's. In memory it has the cache, two to four tables of memTable bytes, and the
// indexes of maxFiles files.
func (s *Store) options() *pebble.Options {
	o := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		CacheSize:          s.cfg.Cache,
		MemTableSize:       memTable,
		MaxOpenFiles:       maxFiles,
		FS:                 s.disk.fs(s.cfg.fs),
		Merger:             sums(),
		Logger:             indexLog{s},
		// Two compactions at most: the host's processors are for its VMs.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	for i := 1; i < len(o.Levels); i++ {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// indexLog gives Pebble's lines to the Store's log.
type indexLog struct{ s *Store }

func (l indexLog) Infof(format string, args ...any) {
	l.s.log.Debug("index said", "op", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (l indexLog) Errorf(format string, args ...any) {
	l.s.log.Error("index failed", "err", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Fatalf ends Run, and does not return: Pebble has lost a write, and may neither go on nor answer.
func (l indexLog) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	l.s.fail(fmt.Errorf("index of objects: "+format, args...))
	select {}
}

// value reads one key. A missing one is pebble.ErrNotFound.
func value(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if err != nil {
		return nil, err
	}
	v = slices.Clone(v)
	return v, closer.Close()
}

func missing(err error) bool { return errors.Is(err, pebble.ErrNotFound) }

// each calls f for all keys that begin with prefix, until it returns an error.
func each(r pebble.Reader, prefix []byte, f func(key, value []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// sums merges values that are lists of numbers, by adding them up.
func sums() *pebble.Merger {
	return &pebble.Merger{
		Name: "lodge.sums",
		Merge: func(_, value []byte) (pebble.ValueMerger, error) {
			m := &sum{}
			return m, m.MergeNewer(value)
		},
	}
}

type sum []int64

func (m *sum) MergeNewer(value []byte) error {
	for i := 0; len(value) > 0; i++ {
		n, size := binary.Varint(value)
		if size <= 0 {
			return damaged("a sum cannot be read")
		}
		value = value[size:]
		if i == len(*m) {
			*m = append(*m, 0)
		}
		(*m)[i] += n
	}
	return nil
}

func (m *sum) MergeOlder(value []byte) error { return m.MergeNewer(value) }

func (m *sum) Finish(bool) ([]byte, io.Closer, error) { return encodeSum(*m...), nil, nil }

func encodeSum(numbers ...int64) (b []byte) {
	for _, n := range numbers {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// readSum returns the numbers of a key, or none.
func readSum(r pebble.Reader, key []byte) (sum, error) {
	v, err := value(r, key)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m sum
	return m, m.MergeNewer(v)
}

// counter hands out numbers that no other object, bucket or blob of this store has or had.
type counter struct {
	mu          sync.Mutex
	index       *pebble.DB
	next, limit uint64
}

const counterBlock = 1 << 16 // numbers that one synced write reserves

func counterKey() []byte { return []byte{ofStore, 'n'} }

func (c *counter) open(index *pebble.DB) error {
	v, err := value(index, counterKey())
	if err != nil && !missing(err) {
		return fmt.Errorf("read counter: %w", err)
	}
	c.index, c.next = index, 1
	if len(v) == 8 {
		c.next = binary.BigEndian.Uint64(v)
	}
	c.limit = c.next
	return nil
}

func (c *counter) take() (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == c.limit {
		limit := c.limit + counterBlock
		if err := c.index.Set(counterKey(), binary.BigEndian.AppendUint64(nil, limit), pebble.Sync); err != nil {
			return 0, fmt.Errorf("reserve numbers: %w", err)
		}
		c.limit = limit
	}
	c.next++
	return c.next - 1, nil
}
