package mailbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// A mark is what the guest had of INBOX at a moment: <uuid>/marks/<id>, a file of eight hex digits of CRC-32C over the
// JSON, a space, the JSON, a newline. UIDs are never given twice, so it stays true whatever becomes of the log.
type mark struct {
	Cursor uint32   `json:"cursor"`
	Parked []uint32 `json:"parked,omitempty"` // UIDs up to the cursor that were not in the guest, in ascending order
}

const marksName = "marks"

// Mark records what the guest has of a VM's mail now, synced, and holds all changes of INBOX back until release is
// called, or for hold.DefaultLimit: they wait, and fail after hold.DefaultWait, see Held; only the records of deliveries wait
// on. So the guest has exactly what is in the mark: what it gets meanwhile keeps a file in tmp that a later delivery finds. KindConflict: there is
// a mark of that id. KindInvalid: the id is no UUID.
func (s *Store) Mark(id gateway.ID, name string) (release func(), err error) {
	path, err := s.markPath(id, name)
	if err != nil {
		return nil, err
	}
	b, err := s.Box(id)
	if err != nil {
		return nil, err
	}
	release = b.gate.Hold(func() { b.logger.Warn("writes were held back too long") })
	if err := s.writeMark(path, b.settled()); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// settled returns the mark of the state after the changes in progress.
func (b *Box) settled() mark {
	b.mu.Lock()
	for b.leading {
		b.idle.Wait()
	}
	b.mu.Unlock()
	s := b.shown.Load()
	m := mark{Cursor: s.cursor}
	if s.parked > 0 {
		for _, e := range s.Entries.All() {
			if e.UID <= s.cursor && e.Flags&parked != 0 {
				m.Parked = append(m.Parked, e.UID)
			}
		}
	}
	return m
}

func (s *Store) writeMark(path string, m mark) error {
	if _, err := os.Lstat(path); err == nil {
		return gateway.Errorf(gateway.KindConflict, "the mailbox has a mark of that checkpoint already")
	}
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return withKind(fmt.Errorf("make marks: %w", err))
	}
	if err := durable.Sync(filepath.Dir(dir)); err != nil { // also if an earlier call has made it: it may have ended before this
		return withKind(err)
	}
	payload, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode mark: %w", err)
	}
	if err := durable.WriteFile(path, fmt.Appendf(nil, "%08x %s\n", checksum(payload), payload), 0o600); err != nil {
		return withKind(err)
	}
	return nil
}

// Rewind makes wait what the guest did not have at a mark, and nothing else: what came into the guest after it, what
// came into the mailbox after it, and what waited then. All accepted mail stays, expunged mail stays expunged, and
// flags and folders are as they are. The caller sees to it that nothing is being delivered. It waits for no release,
// and can be repeated. KindNotFound: there is no such mark, or it is damaged.
func (s *Store) Rewind(id gateway.ID, name string) error {
	m, err := s.readMark(id, name)
	if err != nil {
		return err
	}
	b, err := s.Box(id)
	if err != nil {
		return err
	}
	return b.submit(newTicket(ignore, b.rewind(m)...))
}

// rewind returns the frames that make a mark the present state.
func (b *Box) rewind(m mark) (frames []*frame) {
	var others []uint32 // that are parked now
	for _, e := range b.Snapshot().Entries.All() {
		if _, too := slices.BinarySearch(m.Parked, e.UID); !too && e.Flags&parked != 0 {
			others = append(others, e.UID)
		}
	}
	// In this order a crash between two frames leaves no message that waits nowhere.
	if len(m.Parked) > 0 {
		frames = append(frames, &frame{kind: kindFlags, flags: parked, meta: encodeUIDs(m.Parked)})
	}
	frames = append(frames, &frame{kind: kindRewind, uid: m.Cursor})
	if len(others) > 0 {
		frames = append(frames, &frame{kind: kindFlags, clear: parked, meta: encodeUIDs(others)})
	}
	return frames
}

// HasMark fails with KindNotFound unless there is a mark that can be read.
func (s *Store) HasMark(id gateway.ID, name string) error {
	_, err := s.readMark(id, name)
	return err
}

// Marks returns the ids of a VM's marks, in no order, without damaged ones. It does not open the mailbox.
func (s *Store) Marks(id gateway.ID) (ids []string, err error) {
	names, err := os.ReadDir(filepath.Join(s.dir, id.String(), marksName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list marks: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".") { // it was not complete at a crash
			continue
		}
		_, err := s.readMark(id, n.Name())
		switch gateway.KindOf(err) {
		case gateway.KindNotFound, gateway.KindInvalid: // damaged, or no mark
		default:
			if err != nil {
				return nil, err
			}
			ids = append(ids, n.Name())
		}
	}
	return ids, nil
}

// DropMark removes a mark, and what a crash has left of others. A missing one is no error.
func (s *Store) DropMark(id gateway.ID, name string) error {
	path, err := s.markPath(id, name)
	if err != nil {
		return err
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), durable.TempPattern)) // it has no bad pattern
	for _, p := range append(slices.Clip(left), path) {
		if err := removeFile(p); err != nil {
			return err
		}
	}
	if err := durable.Sync(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *Store) markPath(id gateway.ID, name string) (string, error) {
	if known, err := gateway.ParseID(name); err != nil || known.String() != name {
		return "", gateway.Invalid("not the id of a checkpoint: %.100q", name)
	}
	return filepath.Join(s.dir, id.String(), marksName, name), nil
}

func (s *Store) readMark(id gateway.ID, name string) (m mark, err error) {
	path, err := s.markPath(id, name)
	if err != nil {
		return m, err
	}
	buf, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, gateway.Errorf(gateway.KindNotFound, "the mailbox has no mark of that checkpoint")
	}
	if err != nil {
		return m, fmt.Errorf("read mark: %w", err)
	}
	if m, err = decodeMark(buf); err != nil {
		s.logger.Error("mark of a mailbox damaged", "vm_id", id.String(), "path", path)
		return m, gateway.Errorf(gateway.KindNotFound, "the mailbox's mark of that checkpoint is damaged").Because(err)
	}
	return m, nil
}

var errMark = errors.New("damaged mark")

func decodeMark(b []byte) (m mark, err error) {
	const framing = 9 // checksum, space
	if len(b) < framing+1 || b[8] != ' ' || b[len(b)-1] != '\n' {
		return m, errMark
	}
	sum, err := strconv.ParseUint(string(b[:8]), 16, 32)
	payload := b[framing : len(b)-1]
	if err != nil || uint64(checksum(payload)) != sum {
		return m, errMark
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return mark{}, errMark
	}
	return m, nil
}
