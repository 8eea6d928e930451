package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// sealID is the identifier of the key that the protocol layer encrypts objects with.
type sealID struct {
	mu sync.Mutex
	id []byte // as it is on disk, once it was read or set
}

func sealIDKey() []byte { return []byte{ofStore, 'k'} }

// SealID returns the identifier that SetSealID has set, or nil.
func (s *Store) SealID() ([]byte, error) {
	s.sealID.mu.Lock()
	defer s.sealID.mu.Unlock()
	return s.readSealID()
}

func (s *Store) readSealID() ([]byte, error) {
	if s.sealID.id == nil {
		id, err := value(s.index, sealIDKey())
		if err != nil && !missing(err) {
			return nil, fmt.Errorf("read identifier of the seal key: %w", err)
		}
		s.sealID.id = id
	}
	return slices.Clone(s.sealID.id), nil
}

// SetSealID records which key the protocol layer encrypts objects with, before the first of them. It is
// on disk when it returns, and never changes: another one is an error.
func (s *Store) SetSealID(id []byte) error {
	s.sealID.mu.Lock()
	defer s.sealID.mu.Unlock()
	had, err := s.readSealID()
	if err != nil || bytes.Equal(had, id) {
		return err
	}
	if had != nil {
		return errors.New("objects are encrypted with another key")
	}
	if err := s.index.Set(sealIDKey(), id, pebble.Sync); err != nil {
		return fmt.Errorf("record identifier of the seal key: %w", full(err))
	}
	s.sealID.id = slices.Clone(id)
	return nil
}
