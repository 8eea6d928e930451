package mailbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"lodge/gateway/durable"
)

// Until November 2026 a mailbox was a file "index" of JSON records, and one file per body in "msg".

// oldRecord is one line of an old index: eight hex digits of CRC-32C over the JSON, its length in
// eight hex digits, the JSON, a newline.
type oldRecord struct {
	Op       string    `json:"op"` // head, add, flags, expunge or cursor
	UID      uint32    `json:"uid"`
	UIDs     []uint32  `json:"uids"`
	Validity uint32    `json:"validity"`
	Flags    Flags     `json:"flags"`
	Clear    Flags     `json:"clear"`
	QueueID  string    `json:"id"`
	From     string    `json:"from"`
	Rcpt     string    `json:"rcpt"`
	Subject  string    `json:"subject"`
	Head     string    `json:"head"`
	Bytes    int64     `json:"bytes"` // of head and body
	Received time.Time `json:"at"`
}

func decodeOld(line []byte) (r oldRecord, ok bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	const framing = 18 // checksum, space, length, space
	if len(line) < framing {
		return r, false
	}
	sum, err1 := strconv.ParseUint(string(line[:8]), 16, 32)
	size, err2 := strconv.ParseUint(string(line[9:17]), 16, 32)
	payload := line[framing:]
	if err1 != nil || err2 != nil || size != uint64(len(payload)) || uint64(checksum(payload)) != sum {
		return r, false
	}
	return r, json.Unmarshal(payload, &r) == nil
}

// frame returns the record as a frame; the body of a message is as yet in msg.
func (r oldRecord) frame() *frame {
	f := &frame{
		uid: r.UID, value: r.Validity, flags: r.Flags & AllFlags, clear: r.Clear & AllFlags,
		received: r.Received, meta: encodeUIDs(r.UIDs),
	}
	switch r.Op {
	case "head":
		f.kind = kindHead
	case "add":
		f.kind, f.bytes = kindAddFile, r.Bytes-int64(len(r.Head))
		f.meta = envelope{r.QueueID, r.From, r.Rcpt, r.Subject, r.Head}.encode()
	case "flags":
		f.kind = kindFlags
	case "expunge":
		f.kind = kindExpunge
	case "cursor":
		f.kind = kindCursor
	}
	return f
}

// errStopped is why a migration ended early.
var errStopped = errors.New("the daemon stops; the migration goes on at its next start")

// migrate builds the log of an old mailbox, and gives it its name when it is complete and synced. What a crash or a stop
// has left of it is gone on with; after any other error, as on a full disk, it is removed, and the next start does it
// again. settle removes the old files.
func (b *Box) migrate() error {
	if _, err := os.Stat(b.log); !errors.Is(err, fs.ErrNotExist) {
		return err // nil: it has a log
	}
	if _, err := os.Stat(filepath.Join(b.dir, "msg")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	old, messages, err := b.readOld()
	if err != nil {
		return fmt.Errorf("migrate mailbox: %w", err)
	}
	m, err := b.resume()
	if err == nil {
		err = m.copyOld(old, messages)
	}
	m.seal()
	switch {
	case errors.Is(err, errStopped):
		return err
	case err != nil:
		return errors.Join(fmt.Errorf("migrate mailbox: %w", err), os.RemoveAll(m.log))
	}
	b.logger.Info("mailbox migrated", "path", b.dir)
	return durable.Rename(m.log, b.log)
}

// resume returns the new log, with what an earlier attempt has in it; anew if that is damaged.
func (b *Box) resume() (m *Box, err error) {
	begin := func() error {
		m = newBox(b.dir, b.log+".new", slog.New(slog.DiscardHandler)) // what a crash tore is no loss
		m.segmentBytes, m.stop, m.draft = b.segmentBytes, b.stop, true
		return m.makeDirs()
	}
	if err := begin(); err != nil {
		return m, err
	}
	_, strange, err := listSegments(m.log)
	damaged := len(strange) > 0
	if err == nil && !damaged {
		damaged, err = m.load()
		damaged = damaged || err != nil
	}
	if damaged {
		m.seal()
		if err = os.RemoveAll(m.log); err == nil {
			err = begin()
		}
	}
	m.logger = b.logger
	return m, err
}

// copyOld copies the messages that the log does not have yet, a batch at a time: a write and a sync for all that fit into
// maxBatchBytes.
func (b *Box) copyOld(old *state, messages map[uint32]*frame) error {
	b.state.Validity, b.state.NextUID, b.state.cursor, b.nextUID = old.Validity, old.NextUID, old.cursor, old.NextUID
	if b.state.Validity == 0 {
		b.state.Validity = uint32(time.Now().Unix()) // as restore
	}
	if b.tail == nil {
		if err := b.roll(); err != nil {
			return err
		}
	}
	batch, size := &ticket{}, int64(0)
	for _, e := range old.list.All() {
		if _, there := b.state.list.Find(e.UID); there {
			continue
		}
		f := messages[e.UID]
		f.flags = e.Flags
		if err := b.copyBody(f, e.QueueID); errors.Is(err, errFrame) || errors.Is(err, fs.ErrNotExist) {
			b.logger.Error("message body missing", "queue_id", e.QueueID, "err", err)
			continue
		} else if err != nil {
			return err
		}
		batch.frames = append(batch.frames, f)
		if size += f.length(); size < maxMigrated {
			continue
		}
		if err := b.copyBatch(batch); err != nil {
			return err
		}
		size = 0
	}
	if err := b.copyBatch(batch); err != nil {
		return err
	}
	return b.writeIndex()
}

// maxMigrated is less than maxBatchBytes by one more body.
const maxMigrated = maxBatchBytes - maxInlineBytes

// copyBatch writes what a batch has, after the names of its long bodies, and empties it.
func (b *Box) copyBatch(batch *ticket) error {
	select {
	case <-b.stop:
		return errStopped
	default:
	}
	if len(batch.frames) == 0 {
		return nil
	}
	if err := durable.Sync(b.big("")); err != nil {
		return err
	}
	t := []*ticket{batch}
	if err := b.makeRoom(batch.size(), t); err != nil {
		return err
	}
	if err := b.write(t); err != nil {
		return err
	}
	for _, f := range batch.frames {
		f.body = nil
	}
	batch.frames = nil
	return nil
}

// readOld returns the state that an old index leads to, and its messages by UID.
func (b *Box) readOld() (*state, map[uint32]*frame, error) {
	s, messages := newState(), map[uint32]*frame{}
	f, err := os.Open(filepath.Join(b.dir, "index"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, messages, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open index: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	for r, bad := bufio.NewReader(f), 0; ; {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			old, ok := decodeOld(line)
			f := old.frame()
			if ok = ok && s.apply(f, place{}) == nil; !ok {
				bad++
				s.NextUID++ // it may have been a message
			} else if f.kind == kindAddFile {
				messages[f.uid] = f
			}
		}
		if errors.Is(err, io.EOF) {
			if bad > 0 {
				b.logger.Error("mailbox index damaged", "path", f.Name(), "err", fmt.Sprintf("%d lines not read", bad))
			}
			return s, messages, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read index: %w", err)
		}
	}
}

// copyBody takes the body of f from msg: into the frame, or as a link in big.
func (b *Box) copyBody(f *frame, queueID string) error {
	body, err := os.Open(filepath.Join(b.dir, "msg", queueID))
	if err != nil {
		return fmt.Errorf("open message: %w", err)
	}
	defer func() { _ = body.Close() }() // only read
	info, err := body.Stat()
	if err != nil {
		return fmt.Errorf("open message: %w", err)
	}
	if info.Size() != f.bytes {
		return fmt.Errorf("%d bytes, not %d: %w", info.Size(), f.bytes, errFrame)
	}
	if f.bytes <= maxInlineBytes {
		f.kind, f.body = kindAdd, make([]byte, f.bytes)
		if _, err := io.ReadFull(body, f.body); err != nil {
			return fmt.Errorf("read message: %w", err)
		}
		f.sum = checksum(f.body)
		return nil
	}
	sum := crc32.New(castagnoli())
	if _, err := io.Copy(sum, body); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	f.sum = sum.Sum32()
	if err := os.Link(body.Name(), b.big(queueID)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link message: %w", err)
	}
	return nil
}

// settle removes the old bodies that the log holds. Others, and the old index, move to lost.
func (b *Box) settle() error {
	msg := filepath.Join(b.dir, "msg")
	names, err := os.ReadDir(msg)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list messages: %w", err)
	}
	held := make(map[string]bool, b.state.list.Len())
	for _, e := range b.state.list.All() {
		held[e.QueueID] = true
	}
	for _, n := range names {
		path := filepath.Join(msg, n.Name())
		if held[n.Name()] {
			err = removeFile(path)
		} else {
			err = b.lose(path)
		}
		if err != nil {
			return err
		}
	}
	err = os.Rename(filepath.Join(b.dir, "index"), b.lost("index.migrated"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move old index: %w", err)
	}
	if err := os.Remove(msg); err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	return durable.Sync(b.dir)
}
