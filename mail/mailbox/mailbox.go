// Package mailbox is the record of all mail on this host: one mailbox per VM, keyed by the VM's
// UUID.
//
// On disk, under the directory given to Open:
//
//	stage/<random>         a message that is coming in and is not in memory; emptied at start
//	<uuid>/log/<n>-<x>.seg segments of a log of frames, see frame
//	<uuid>/log/index       what the log leads to; a cache
//	<uuid>/big/<queue id>  a body that is no part of its frame, byte for byte as it came over SMTP
//	<uuid>/lost/           what was found and not understood
//	<uuid>/marks/<id>      what the guest had at a checkpoint, see mark
//	<uuid>/folders/table   the names of the folders that IMAP shows beside INBOX, see folderTable
//	<uuid>/folders/<n>/    the mail of one of them: log, big and lost as above
//
// A message is accepted by one write and one fdatasync of the log, which concurrent senders share
// (Box.lead). A body above 1 MiB is synced to stage and linked into big before that. The trace
// headers on top of a message are in its frame, so one file serves every recipient of a transaction.
//
// A folder is a further Box, with a log and a UIDVALIDITY of its own: all that heals INBOX heals it, and
// the way that mail comes in stays as it is. A move writes to the new log first and expunges then, so that a
// crash leaves a message in one of both, or in both. The table is replaced as a whole, synced; a rename
// changes nothing else. A folder is removed from the disk only if the table has recorded that.
//
// A frame that is torn or damaged costs only what it held: a copy of it goes to lost with an ERROR,
// reading goes on at the next frame, and a new segment begins. Nothing is unlinked or overwritten
// that is not recorded as expunged. This package never parses mail, and never speaks a protocol.
package mailbox

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// Store holds the mailboxes of this host. It is safe for concurrent use. Only one process at a time
// may open it.
type Store struct {
	dir      string
	logger   *slog.Logger
	settings func(gateway.ID) gateway.MailSettings // see Obey

	mu      sync.Mutex
	boxes   map[gateway.ID]*opening
	removed map[gateway.ID]struct{} // never opened again: UUIDs are never used twice
	closed  bool
	closing chan struct{}                // closed by Close
	awaited map[gateway.ID]chan struct{} // by Await, until the mailbox is opened

	turn   chan struct{} // holds one: of who opens a mailbox that nobody waits for, see Await
	staged atomic.Int64  // bytes of messages in memory
}

// opening is a mailbox that is opened once. Others do not wait for it.
type opening struct {
	once sync.Once
	box  *Box
	err  error
	open atomic.Pointer[Box] // box, for who does not wait for it
}

// end closes the mailbox, once it is open, or keeps it from being opened.
func (o *opening) end(reason error) {
	o.once.Do(func() { o.err = reason })
	if o.box != nil {
		o.box.folders.close(reason)
	}
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
		settings: func(gateway.ID) gateway.MailSettings { return gateway.MailSettings{} },
		boxes:    map[gateway.ID]*opening{},
		removed:  map[gateway.ID]struct{}{},
		awaited:  map[gateway.ID]chan struct{}{},
		turn:     make(chan struct{}, 1),
		closing:  make(chan struct{}),
	}, nil
}

// Box opens the mailbox of a VM, and creates it if missing. It fails with KindNotFound after
// Remove.
func (s *Store) Box(id gateway.ID) (*Box, error) {
	o, err := s.opening(id)
	if err != nil {
		return nil, err
	}
	o.once.Do(func() {
		o.box, o.err = openBox(filepath.Join(s.dir, id.String()), s.logger.With("vm_id", id.String()), s.closing)
		if o.err == nil {
			newFolders(s, id, o.box)
		}
	})
	if o.err == nil {
		o.open.Store(o.box)
		return o.box, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boxes[id] == o {
		delete(s.boxes, id) // the next call tries again
	}
	return nil, withKind(fmt.Errorf("open mailbox: %w", o.err))
}

// Opened returns the mailbox of a VM if it is open already; nil otherwise.
func (s *Store) Opened(id gateway.ID) *Box {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.boxes[id]; o != nil {
		return o.open.Load()
	}
	return nil
}

func (s *Store) opening(id gateway.ID) (*opening, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed()
	}
	if _, gone := s.removed[id]; gone || id == (gateway.ID{}) {
		return nil, errRemoved()
	}
	o, ok := s.boxes[id]
	if !ok {
		o = &opening{}
		s.boxes[id] = o
		if opened, is := s.awaited[id]; is {
			close(opened)
			delete(s.awaited, id)
		}
	}
	return o, nil
}

// Remove deletes a VM's mailbox. A missing mailbox is no error.
func (s *Store) Remove(id gateway.ID) error {
	s.mu.Lock()
	o := s.boxes[id]
	delete(s.boxes, id)
	s.removed[id] = struct{}{}
	delete(s.awaited, id) // who awaits it ends with its context
	s.mu.Unlock()
	if o != nil {
		o.end(errRemoved())
	}
	if err := os.RemoveAll(filepath.Join(s.dir, id.String())); err != nil {
		return fmt.Errorf("remove mailbox: %w", err)
	}
	return durable.Sync(s.dir)
}

// Close waits for commits in progress and closes every mailbox. Migrations end, and go on at the next start.
func (s *Store) Close() {
	s.mu.Lock()
	if !s.closed {
		close(s.closing)
	}
	s.closed = true
	boxes := s.boxes
	s.boxes = nil
	s.mu.Unlock()
	for _, o := range boxes {
		o.end(errClosed())
	}
}

// removeFile unlinks path. A missing file is no error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}
