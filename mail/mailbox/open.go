package mailbox

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"lodge/gateway/durable"
)

// openBox reads a mailbox, and creates a missing one. It deletes nothing but what is recorded as
// expunged. When stop closes, a migration ends with errStopped; the next one goes on from there.
func openBox(dir string, logger *slog.Logger, stop <-chan struct{}) (*Box, error) {
	b := newBox(dir, filepath.Join(dir, "log"), logger)
	b.stop = stop
	if err := b.restore(); err != nil {
		b.seal()
		return nil, err
	}
	return b, nil
}

func newBox(dir, log string, logger *slog.Logger) *Box {
	b := &Box{dir: dir, log: log, logger: logger, state: newState(), changed: make(chan struct{}), segmentBytes: segmentBytes, datasync: syscall.Fdatasync}
	b.idle = sync.NewCond(&b.mu)
	return b
}

// makeDirs makes the directories that are missing. Those that are there were synced before anything in them counts:
// here, or after a crash in between by syncNames.
func (b *Box) makeDirs() error {
	made := false
	for _, dir := range []string{b.log, b.big(""), b.lost("")} {
		_, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			made, err = true, os.MkdirAll(dir, 0o700)
		}
		if err != nil {
			return fmt.Errorf("make mailbox: %w", err)
		}
	}
	if !made {
		return nil
	}
	return b.syncDirs()
}

// syncDirs syncs the names of the directories.
func (b *Box) syncDirs() error {
	return errors.Join(durable.Sync(b.dir), durable.Sync(filepath.Dir(b.dir)))
}

func (b *Box) restore() error {
	if err := b.migrate(); err != nil {
		return err
	}
	if err := b.makeDirs(); err != nil {
		return err
	}
	damaged, err := b.load()
	if err != nil {
		return err
	}
	if err := errors.Join(b.settle(), b.checkBig()); err != nil {
		return err
	}
	if b.state.Validity == 0 {
		b.state.Validity = uint32(time.Now().Unix()) // until 2106; a mailbox is created once, so it never repeats
	}
	b.show()
	if damaged { // what is damaged is not written again
		if err := b.roll(); err != nil {
			b.logger.Warn("mailbox segment not begun", "err", err) // the next message tries again
		}
		b.show()
	}
	return nil
}

// load reads the index, and the log from there. An index that is missing counts as damage.
func (b *Box) load() (damaged bool, err error) {
	segments, strange, err := listSegments(b.log)
	if err != nil {
		return false, err
	}
	for _, name := range strange {
		if strings.HasPrefix(name, ".new-") { // of durable.WriteFile: an index that was not complete
			err = removeFile(filepath.Join(b.log, name))
		} else {
			err = b.lose(filepath.Join(b.log, name))
		}
		if err != nil {
			return false, err
		}
	}
	number, offset, err := b.loadIndex(segments)
	if err != nil {
		return false, err
	}
	indexEnd := offset
	r := &replay{box: b, unsound: map[uint32]place{}, damaged: b.dirty}
	for i, s := range b.state.segments {
		if i > 0 && s.number != b.state.segments[i-1].number+1 {
			b.logger.Error("mailbox segment missing", "path", b.path(s), "err", "it follows one that is gone")
		}
		if s.number < number {
			continue
		}
		if s.number > number {
			offset = 0
		}
		if err := r.segment(s, offset); err != nil {
			return false, err
		}
	}
	if b.tail != nil && (b.last().number != number || b.end != indexEnd) {
		b.dirty = true // so that the next start need not read this again
	}
	if err := b.reconcile(); err != nil {
		return false, err
	}
	r.judge()
	return r.damaged, nil
}

// reconcile takes from an index that does not fit the log what a lost part of the log had of messages that
// are still there: expunged ones stay so, and parked ones are tried again.
func (b *Box) reconcile() error {
	old := b.indexed
	if old == nil {
		return nil
	}
	b.indexed = nil
	var gone, parkedOnes []uint32
	for _, e := range b.state.list.All() {
		was, there := old.list.Find(e.UID)
		switch {
		case e.UID >= old.NextUID: // it came later
		case !there:
			gone = append(gone, e.UID)
		case was.Flags&parked != 0:
			parkedOnes = append(parkedOnes, e.UID)
		}
	}
	return errors.Join(
		b.state.apply(&frame{kind: kindExpunge, meta: encodeUIDs(gone)}, place{}),
		b.state.apply(&frame{kind: kindFlags, flags: parked, meta: encodeUIDs(parkedOnes)}, place{}),
	)
}

// loadIndex takes the state from the index, with the segments there are, and returns the place in
// the log where it ends. Without an index to be trusted, that is the beginning.
func (b *Box) loadIndex(have []segment) (number uint32, offset int64, err error) {
	path := filepath.Join(b.log, indexName)
	s, offset, err := readIndex(path)
	if errors.Is(err, errIndex) {
		b.logger.Error("mailbox index damaged", "path", path)
		err = os.Rename(path, filepath.Join(b.log, damagedIndex))
	}
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return 0, 0, err
	case s == nil:
		if len(have) > 0 {
			b.logger.Warn("mailbox has no index; reading all of the log", "path", b.log)
		}
		b.state.segments, b.dirty = have, true
		return 0, 0, nil
	}
	if err := b.trust(s, offset, have); err != nil {
		b.logger.Error("mailbox index does not fit the log", "path", b.log, "err", err)
		b.state.Validity, b.state.NextUID, b.state.cursor, b.state.Keywords = s.Validity, s.NextUID, s.cursor, s.Keywords
		b.state.segments, b.dirty, b.indexed = have, true, s
		return 0, 0, nil
	}
	for len(s.segments) > 0 && have[0].number < s.segments[0].number {
		if err := removeFile(b.path(have[0])); err != nil { // the index was written when no message in it lived
			return 0, 0, err
		}
		have = have[1:]
	}
	if len(s.segments) > 0 {
		number = s.segments[len(s.segments)-1].number
	}
	s.segments = have
	b.state = s
	return number, offset, nil
}

// trust compares an index, which ends at offset of its last segment, with the segments there are.
func (b *Box) trust(s *state, offset int64, have []segment) error {
	for _, g := range s.segments {
		if !slices.Contains(have, g) {
			return fmt.Errorf("segment %s is missing", g.name())
		}
	}
	if len(s.segments) == 0 {
		return nil
	}
	info, err := os.Stat(b.path(s.segments[len(s.segments)-1]))
	if err == nil && info.Size() < offset {
		err = fmt.Errorf("%s has %d bytes, not %d", info.Name(), info.Size(), offset)
	}
	return err
}

// replay reads the log into a box's state.
type replay struct {
	box     *Box
	now     segment
	file    *os.File
	unsound map[uint32]place // messages whose body is damaged, or punched because they are expunged later
	damaged bool
}

// segment reads a segment from offset on. The last one becomes the tail, if there was no damage.
func (r *replay) segment(s segment, offset int64) error {
	f, err := os.OpenFile(r.box.path(s), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		r.now, r.file, r.box.end = s, f, info.Size()
		err = walk(f, s.marker, offset, info.Size(), r)
	}
	if err == nil && !r.damaged && s == r.box.last() && r.box.end > 0 {
		r.box.tail = f
		return nil
	}
	_ = f.Close() // only read
	return err
}

func (r *replay) frame(at int64, f frame, sound bool) error {
	p := placeOf(&f, r.now.number, at)
	if r.box.state.apply(&f, p) != nil {
		return r.damage(at, at+p.length)
	}
	if !sound {
		r.unsound[f.uid] = p
	}
	return nil
}

// damage keeps a copy of what cannot be read. UIDs that may have been in it are not given again.
//
// A copy that cannot be made, as on a full disk, fails nothing: mail that is intact must be readable, above all then. What is
// damaged stays in its segment, which is neither written nor removed while it is unkept; and no index is written, so
// that the next start reads the damage again, and tries to keep it again.
func (r *replay) damage(from, to int64) error {
	r.damaged = true
	if r.box.draft {
		return nil
	}
	r.box.state.NextUID += uint32((to-from)/headBytes) + 1 // of 64 MiB or little more
	path := r.box.lost(fmt.Sprintf("%s@%d", r.now.name(), from))
	r.box.logger.Error("mailbox damaged", "path", path, "bytes", to-from)
	if info, err := os.Stat(path); err == nil && info.Size() == to-from {
		return nil // from an earlier start
	}
	buf := make([]byte, to-from)
	if _, err := r.file.ReadAt(buf, from); err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	if err := durable.WriteFile(path, buf, 0o600); err != nil {
		r.box.unkept = true
		r.box.logger.Error("damage of a mailbox not copied; its segments stay", "path", path, "err", err)
	}
	return nil
}

// judge logs the messages that are damaged, now that expunged ones are known.
func (r *replay) judge() {
	for uid, p := range r.unsound {
		if e, ok := r.box.state.list.Find(uid); ok && e.at == p {
			r.box.logger.Error("message damaged", "queue_id", e.QueueID, "path", r.box.path(r.box.state.segment(p.segment)))
		}
	}
}

// checkBig compares the files in big with the messages.
func (b *Box) checkBig() error {
	names, err := os.ReadDir(b.big(""))
	if err != nil {
		return fmt.Errorf("list messages: %w", err)
	}
	have := map[string]bool{}
	for _, n := range names {
		have[n.Name()] = true
	}
	for _, p := range b.state.list.Pages() {
		if p.packed != nil && !p.packed.big {
			continue
		}
		for _, e := range p.Entries() {
			if e.at.file && !have[e.QueueID] {
				b.logger.Error("message body missing", "queue_id", e.QueueID)
			}
			if e.at.file {
				delete(have, e.QueueID)
			}
		}
	}
	for name := range have {
		if err := b.lose(b.big(name)); err != nil {
			return err
		}
	}
	return nil
}

func (b *Box) lost(name string) string { return filepath.Join(b.dir, "lost", name) }

// lose moves a file that no record explains to lost.
func (b *Box) lose(path string) error {
	to := b.lost(filepath.Base(path))
	if _, err := os.Lstat(to); err == nil {
		to += "." + NewQueueID(time.Now())
	}
	b.logger.Error("unknown file in a mailbox moved", "path", to)
	if err := durable.Rename(path, to); err != nil {
		return fmt.Errorf("move to lost: %w", err)
	}
	return durable.Sync(filepath.Dir(path))
}
