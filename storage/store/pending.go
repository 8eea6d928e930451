package store

import (
	"errors"

	"lodge/gateway"
)

// Snapshot marks this point in time of a VM's objects.
func (s *Store) Snapshot(vm gateway.ID) (Snapshot, error) { return 0, errors.ErrUnsupported }

// Restore makes a VM's buckets and objects what they were at a snapshot. Uploads are aborted. The snapshot
// stays; later ones are dropped.
func (s *Store) Restore(vm gateway.ID, at Snapshot) error { return errors.ErrUnsupported }

// Fork gives a VM that has nothing stored what another one had at a snapshot, or has now. Both share no
// record; large bodies are hard links.
func (s *Store) Fork(vm gateway.ID, at *Snapshot, to gateway.ID) error { return errors.ErrUnsupported }

// Drop ends a snapshot, and frees what only it held.
func (s *Store) Drop(vm gateway.ID, at Snapshot) error { return errors.ErrUnsupported }
