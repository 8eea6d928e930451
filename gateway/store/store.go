// Package store keeps the state of the host in one SQLite file. A write is synced to disk when the
// call returns (WAL, synchronous=FULL).
//
// VMs are rows, of this host alone. All that several hosts would have to agree on is in
// gateway.Shared, which this package implements in the same file: KV, Logins and the claims of a VM
// to its name, number and address are written over the interface.
//
// The file has one writer. Migrations run in order when it is opened. A file of a newer Lodge is
// refused, never guessed at.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"lodge/gateway"
)

// AddressRest is how long a guest address stays unused after its VM is gone.
const AddressRest = 15 * time.Minute

// Store is an open database. It is safe for concurrent use.
type Store struct {
	db     *sql.DB
	shared *Shared
	logins *Logins
	net    netip.Prefix
	now    func() time.Time

	mu     sync.Mutex // held while claims and rows change together
	strays bool       // there may be claims that no row holds
}

// Open opens the file, creates it (0600) if needed, and brings its schema up to date. Guest
// addresses are taken from guests. A damaged file, or one of a newer Lodge, is refused with a hint
// and left unchanged.
func Open(ctx context.Context, path string, guests netip.Prefix) (*Store, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	db.SetMaxOpenConns(1) // one writer; most reads are answered by the Directory, from memory
	s := &Store{db: db, net: guests.Masked(), now: time.Now}
	if err := s.prepare(ctx); err != nil {
		_ = db.Close() // the first error is reported
		return nil, explain(path, err)
	}
	return s, nil
}

// Shared returns the part of the store that several hosts would share.
func (s *Store) Shared() *Shared { return s.shared }

// Close closes the file.
func (s *Store) Close() error {
	s.shared.stop()
	err := s.db.Close()
	s.shared.notify() // each Watch finds the file closed
	return err
}

func newSecret() (secret [32]byte) {
	_, _ = rand.Read(secret[:]) // crypto/rand.Read never fails
	return secret
}

func dsn(path string) string {
	q := url.Values{"_pragma": {
		"synchronous(FULL)", "busy_timeout(5000)", "foreign_keys(1)",
	}, "_txlock": {"immediate"}}
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: q.Encode()}).String()
}

// prepare checks the file and migrates it.
func (s *Store) prepare(ctx context.Context) error {
	var sound string
	if err := s.db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&sound); err != nil {
		return err
	}
	if sound != "ok" {
		return errCorrupt
	}
	if err := s.refuseNewer(ctx); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, `PRAGMA journal_mode = WAL`); err != nil {
		return err // only now: the switch writes to the file
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	var err error
	if s.shared, err = newShared(ctx, s.db); err != nil {
		return err
	}
	if s.logins, err = openLogins(ctx, s.shared, s.now); err != nil {
		return err
	}
	_ = s.releaseStrays(ctx) // on a full disk they wait for the next claim
	return nil
}

var errCorrupt = errors.New("the file is damaged")

// explain gives errors about a damaged file a hint.
func explain(path string, err error) error {
	if sqliteErr, ok := errors.AsType[*sqlite.Error](err); ok {
		switch sqliteErr.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			err = errors.Join(errCorrupt, err)
		}
	}
	if errors.Is(err, errCorrupt) {
		return gateway.Invalid("the state file %s is damaged and was left as it is", path).Because(err).
			WithHint("Put a backup in its place. VMs and their disks are not touched by this.")
	}
	return fmt.Errorf("open state %s: %w", path, err)
}

// refine gives errors about a full disk and about a missing row their kinds.
func refine(err error) error {
	if sqliteErr, ok := errors.AsType[*sqlite.Error](err); ok && sqliteErr.Code()&0xff == sqlite3.SQLITE_FULL {
		return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").Because(err).
			WithHint("Free some space on the file system of the state directory, then try again.")
	}
	if errors.Is(err, sql.ErrNoRows) {
		return gateway.Errorf(gateway.KindNotFound, "not found").Because(fs.ErrNotExist)
	}
	return err
}
