// Package contacts records who wrote to each VM: the VM may answer them (package submit).
//
// There is one file per VM, named by its UUID: a line for each address and day on which it wrote,
// "2026-11-29 ada@example.com", the newest last. A line is appended and synced; the file is written
// anew, without what is out of date, when it has twice the lines that it needs. A line that cannot be
// read is left out.
//
// Strangers fill the record, so it has at most maxContacts addresses per VM. Above that the domain with
// the most addresses loses its oldest one: who has a domain, and with it any number of addresses,
// displaces his own.
//
// The caller decides whose address is proven; this package never reads a message.
package contacts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/gateway/people"
)

// Life is how long an address is kept after the last day on which it wrote.
const Life = 30 * 24 * time.Hour

const (
	maxContacts = 1000 // of a VM
	day         = 24 * time.Hour
)

// Book has the records of all VMs of a host. It is safe for concurrent use. Only one process at a time may
// open it.
type Book struct {
	dir string

	mu      sync.Mutex
	of      map[gateway.ID]*record
	removed map[gateway.ID]struct{} // never opened again: UUIDs are never used twice
}

// Open opens the records in dir, which it creates if missing.
func Open(dir string) (*Book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of contacts: %w", err)
	}
	if err := durable.Sync(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	unfinished, err := filepath.Glob(filepath.Join(dir, durable.TempPattern))
	if err != nil {
		return nil, fmt.Errorf("find unfinished files: %w", err)
	}
	for _, file := range unfinished {
		if err := os.Remove(file); err != nil {
			return nil, fmt.Errorf("remove unfinished file: %w", err)
		}
	}
	return &Book{dir: dir, of: map[gateway.ID]*record{}, removed: map[gateway.ID]struct{}{}}, nil
}

// Wrote records that an address wrote to a VM, and returns once that is synced to disk. An address that
// people.ParseAddress refuses is not recorded. On a day on which it is recorded already, nothing is
// written. It fails with KindNotFound after Remove, with KindNoSpace if the disk is full.
func (b *Book) Wrote(id gateway.ID, address string, now time.Time) error {
	address, err := people.ParseAddress(address)
	if err != nil {
		return nil //nolint:nilerr // nobody could be answered there
	}
	r, err := b.record(id)
	if err != nil {
		return err
	}
	if err := r.add(address, number(now)); err != nil {
		if durable.IsFull(err) {
			return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").Because(err)
		}
		return fmt.Errorf("record contact: %w", err)
	}
	return nil
}

// HasWritten reports whether an address wrote to a VM within Life; the day on which it wrote is counted to its
// end.
func (b *Book) HasWritten(id gateway.ID, address string, now time.Time) (bool, error) {
	address, err := people.ParseAddress(address)
	if err != nil {
		return false, nil //nolint:nilerr // it is not recorded
	}
	r, err := b.record(id)
	if err != nil {
		return false, err
	}
	return r.has(address, number(now))
}

// Remove deletes a VM's record. A missing one is no error.
func (b *Book) Remove(id gateway.ID) error {
	b.mu.Lock()
	r := b.of[id]
	delete(b.of, id)
	b.removed[id] = struct{}{}
	b.mu.Unlock()
	if r != nil {
		r.end()
	}
	if err := os.Remove(b.file(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove contacts: %w", err)
	}
	return durable.Sync(b.dir)
}

func (b *Book) file(id gateway.ID) string { return filepath.Join(b.dir, id.String()) }

func (b *Book) record(id gateway.ID) (*record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, gone := b.removed[id]; gone || id == (gateway.ID{}) {
		return nil, errGone()
	}
	r, ok := b.of[id]
	if !ok {
		r = &record{file: b.file(id)}
		b.of[id] = r
	}
	return r, nil
}

func errGone() error { return gateway.Errorf(gateway.KindNotFound, "the VM was removed") }

// number counts days, in UTC.
func number(t time.Time) int64 { return t.Unix() / int64(day/time.Second) }
