// Package store keeps objects: an index in Pebble, and immutable files for large bodies. It has VMs,
// buckets and keys, and no HTTP. Who may call for which VM is the caller's business.
//
//	index/                  Pebble: all records, and bodies of up to 32 KiB
//	blobs/new/<id>          large bodies until their commit
//	blobs/<vm>/<2 hex>/<id> large bodies after it, never changed
//	removing/<vm>           blobs of a VM that was removed
//	ballast                 room for the index on a full disk
//
// A write goes: the body into a file in blobs/new, whose directory entry is synced, and fdatasync; then
// under the key's lock the conditions, and one synced batch with the record, the usage and what became
// garbage; then a rename out of blobs/new. So Open finds what a crash interrupted in blobs/new alone: a
// file with a record is renamed, the others are removed.
//
// Readers have no lock. Get pins the files of a body, and the collector leaves pinned ones. A body is
// compared with its checksums chunk by chunk, each before its first byte is returned.
//
// A multipart object is a list of its parts' bodies, and a copy shares the files of its source: both
// copy no bytes.
package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"lodge/gateway"
	"lodge/gateway/durable"
)

const (
	maxSmall    = 32 << 10 // larger bodies get a file
	maxParts    = 10_000
	minPart     = 5 << 20 // of a multipart object's parts, but the last
	maxPage     = 1000
	maxUploads  = 10_000    // in progress, of one VM
	maxBuckets  = 1000      // of one VM
	historyStep = 1000      // values of a history that one batch changes
	maxMeta     = 64 << 10  // of an object's record
	maxConfig   = 512 << 10 // of a bucket's record
	smallConfig = 16 << 10  // of a bucket's record that is possible above the quota
	cacheBytes  = 64 << 20
	memTable    = 16 << 20
	maxFiles    = 256 // that Pebble keeps open
)

// Config is what a Store needs. Only Log is required.
type Config struct {
	Log     *slog.Logger
	Now     func() time.Time                          // time.Now
	Limits  func(vm gateway.ID, bucket string) Limits // nil: none
	Cache   int64                                     // bytes of Pebble's cache: 64 MiB
	MinPart int64                                     // the least size of a part but the last: 5 MiB

	// Rule returns what in a bucket's Config asks for an event; nil: nothing does. Queued is called after each commit
	// that made events of a VM wait, and after a restore; it may not call the Store.
	Rule   func(b *Bucket, what, name string) (Rule, bool)
	Queued func(vm gateway.ID)

	fs vfs.FS // below the index; for tests
}

// Store is the objects of one state directory. All methods but Close may be called at the same time.
type Store struct {
	cfg   Config
	dir   string
	index *pebble.DB
	log   *slog.Logger

	ids     counter
	locks   *locks
	loading *locks // of accounts
	blobs   *blobs
	disk    *disk
	garbage collector
	recent  recent
	sealID  sealID

	stepSize   int   // how many values of a history one batch changes
	maxUploads int64 // in progress, of one VM
	maxBuckets int   // of one VM
	maxEvents  int   // that wait, of one VM

	mu       sync.Mutex
	accounts map[gateway.ID]*account

	failed  chan struct{} // closed after an error that leaves the index unusable
	failure error         // set before that
	failing sync.Once

	closing sync.Once
	closed  error // of Close
}

// Open opens or makes the store in dir, and finishes what a crash interrupted. One process can have it
// open at a time.
func Open(dir string, cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg.withDefaults(), dir: dir, log: cfg.Log, locks: newLocks(), loading: newLocks(),
		stepSize: historyStep, maxUploads: maxUploads, maxBuckets: maxBuckets, maxEvents: maxEvents,
		accounts: map[gateway.ID]*account{}, failed: make(chan struct{}),
	}
	for _, d := range []string{dir, s.path("index"), s.path("blobs"), s.path("blobs", "new"), s.path("removing")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make %s: %w", d, err)
		}
	}
	for _, d := range []string{s.path("blobs"), dir, filepath.Dir(dir)} {
		if err := durable.Sync(d); err != nil {
			return nil, err
		}
	}
	var err error
	if s.disk, err = openDisk(dir); err != nil {
		return nil, err
	}
	db, err := pebble.Open(s.path("index"), s.options())
	if err != nil {
		return nil, fmt.Errorf("open index of objects: %w", err)
	}
	s.index = db
	if err := s.start(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *Store) start() error {
	if err := s.ids.open(s.index); err != nil {
		return err
	}
	s.blobs = newBlobs(s)
	s.garbage = newCollector()
	return s.recover()
}

// Close closes the index. Before it, the caller ends all calls and closes all bodies. It can be called
// again.
func (s *Store) Close() error {
	select {
	case <-s.failed:
		return s.failure // the index is left as it is, like after a crash
	default:
	}
	s.closing.Do(func() {
		s.closed = s.UnlessFailed(func() error { return errors.Join(s.blobs.close(), s.index.Close()) })
	})
	return s.closed
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Limits == nil {
		c.Limits = func(gateway.ID, string) Limits { return Limits{} }
	}
	if c.Rule == nil {
		c.Rule = func(*Bucket, string, string) (Rule, bool) { return Rule{}, false }
	}
	if c.Queued == nil {
		c.Queued = func(gateway.ID) {}
	}
	if c.Cache == 0 {
		c.Cache = cacheBytes
	}
	if c.fs == nil {
		c.fs = vfs.Default
	}
	if c.MinPart == 0 {
		c.MinPart = minPart
	}
	return c
}

// fail ends Run with an error.
func (s *Store) fail(err error) {
	s.failing.Do(func() {
		s.failure = err
		close(s.failed)
	})
}
