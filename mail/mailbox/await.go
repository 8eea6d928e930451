package mailbox

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"lodge/gateway"
)

// Await opens the mailbox of a VM when there is something to do in it: at once if a message may wait
// behind the delivery cursor or be parked, else when anything else opens it. So a start does not read all mail there
// is. It opens one mailbox at a time, and leaves the processors to who needs one now.
func (s *Store) Await(ctx context.Context, id gateway.ID) (*Box, error) {
	opened := s.opened(id)
	if opened == nil {
		return s.Box(id)
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-opened: // its mail does not wait for others' turns
		return s.Box(id)
	case s.turn <- struct{}{}:
	}
	b, err := s.openUnlessQuiet(id)
	<-s.turn
	if b != nil || err != nil {
		return b, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-opened:
		return s.Box(id)
	}
}

func (s *Store) openUnlessQuiet(id gateway.ID) (*Box, error) {
	if s.quiet(id) {
		return nil, nil
	}
	return s.Box(id)
}

// opened returns a channel that is closed when the mailbox is opened, or nil if it is.
func (s *Store) opened(id gateway.ID) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, removed := s.removed[id]
	if _, open := s.boxes[id]; open || removed || s.closed {
		return nil
	}
	if s.awaited[id] == nil {
		s.awaited[id] = make(chan struct{})
	}
	return s.awaited[id]
}

var errWaits = errors.New("a message waits")

// quiet reports whether the index of a mailbox that is not open proves that no message waits: it is
// sound, the log ends where it does, the cursor is at its last message, and none is parked.
func (s *Store) quiet(id gateway.ID) bool {
	dir := filepath.Join(s.dir, id.String())
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return true // no mail has come yet
	}
	log := filepath.Join(dir, "log")
	var last uint32 // UID of a message that is for the guest
	p, err := scanIndex(filepath.Join(log, indexName), false, func(entries []byte) error {
		for e := entries; len(e) > 0; e = e[indexEntryBytes:] {
			flags := Flags(e[4])
			if flags&parked != 0 {
				return errWaits
			}
			if flags&local == 0 {
				last = binary.LittleEndian.Uint32(e)
			}
		}
		return nil
	})
	if err != nil || last > p.Cursor {
		return false
	}
	have, strange, err := listSegments(log)
	if err != nil || len(strange) > 0 || len(have) != len(p.segments) {
		return false
	}
	for i, g := range have {
		if g != (segment{p.segments[i].Number, p.segments[i].Marker}) {
			return false
		}
	}
	if len(have) == 0 {
		return true
	}
	info, err := os.Stat(filepath.Join(log, have[len(have)-1].name()))
	return err == nil && info.Size() == p.Offset
}
