// Package mailbox is the record of all mail on this host: one mailbox per VM, keyed by the VM's
// UUID.
//
// On disk, under the directory given to Open:
//
//	stage/<random>        a message that is coming in; emptied at start
//	<uuid>/msg/<queue id> the body of one message, byte for byte as it came over SMTP
//	<uuid>/index          an append-only log of small records, see record
//
// A message is accepted in this order: the body is written to stage and synced, linked into each
// recipient's msg, the directory is synced, an "add" record is appended to the index, the index is
// synced. Only this last sync makes it a message. Concurrent senders share the two later syncs
// (Box.lead). The trace headers on top of a message are in its index record, so one body serves
// every recipient of a transaction by hard links.
//
// A crash can leave a torn record at the end of an index, whose length or checksum is wrong, and
// bodies without a record. The next open removes both. A record whose checksum holds is always
// kept, even behind damage. This package never parses mail, never speaks a protocol, and keeps no
// body in memory.
package mailbox

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// Store holds the mailboxes of this host. It is safe for concurrent use. Only one process at a time
// may open it.
type Store struct {
	dir    string
	logger *slog.Logger

	mu      sync.Mutex
	boxes   map[gateway.ID]*Box
	removed map[gateway.ID]struct{} // never opened again: UUIDs are never used twice
	closed  bool
}

// Open opens the store in dir, which it creates if missing, and removes messages that were
// incomplete at a crash.
func Open(dir string, logger *slog.Logger) (*Store, error) {
	stage := filepath.Join(dir, "stage")
	if err := os.RemoveAll(stage); err != nil {
		return nil, fmt.Errorf("clear stage: %w", err)
	}
	if err := os.MkdirAll(stage, 0o700); err != nil {
		return nil, fmt.Errorf("make mail directory: %w", err)
	}
	if err := errors.Join(durable.Sync(dir), durable.Sync(filepath.Dir(dir))); err != nil {
		return nil, err
	}
	return &Store{
		dir: dir, logger: logger,
		boxes:   map[gateway.ID]*Box{},
		removed: map[gateway.ID]struct{}{},
	}, nil
}

// Box opens the mailbox of a VM, and creates it if missing. It fails with KindNotFound after
// Remove.
func (s *Store) Box(id gateway.ID) (*Box, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed()
	}
	if _, gone := s.removed[id]; gone || id == (gateway.ID{}) {
		return nil, errRemoved()
	}
	if b, ok := s.boxes[id]; ok {
		return b, nil
	}
	b, err := openBox(filepath.Join(s.dir, id.String()), s.logger.With("vm_id", id.String()))
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	s.boxes[id] = b
	return b, nil
}

// Remove deletes a VM's mailbox. A missing mailbox is no error.
func (s *Store) Remove(id gateway.ID) error {
	s.mu.Lock()
	b := s.boxes[id]
	delete(s.boxes, id)
	s.removed[id] = struct{}{}
	s.mu.Unlock()
	if b != nil {
		b.close(errRemoved())
	}
	if err := os.RemoveAll(filepath.Join(s.dir, id.String())); err != nil {
		return fmt.Errorf("remove mailbox: %w", err)
	}
	return durable.Sync(s.dir)
}

// Close waits for commits in progress and closes every mailbox.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	boxes := s.boxes
	s.boxes = nil
	s.mu.Unlock()
	for _, b := range boxes {
		b.close(errClosed())
	}
}

// removeFile unlinks path. A missing file is no error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}
