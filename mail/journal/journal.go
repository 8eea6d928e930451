// Package journal keeps the log of each VM's mail, for people: what was received, refused, delivered and
// sent. The record of mail is package mailbox; nothing depends on this log.
//
// On disk, under the directory given to Open, a VM has a directory named by its UUID with two rings, so that
// what strangers are refused displaces nothing else:
//
//	<uuid>/mail, <uuid>/mail.old          events in JSON, a line each, the newest last
//	<uuid>/refused, <uuid>/refused.old    those of MailRefused
//
// A file that has 128 KiB becomes the old one, so a VM has 512 KiB at most. Events are written within a
// second, or as soon as there are 16 KiB of them, and never synced: a crash of the daemon loses those of the last
// second, and one of the host more. A line that cannot be read is left out. What cannot be written, as on a
// full disk, is lost: no mail waits for its log.
package journal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"lodge/gateway"
)

const (
	maxFileBytes   = 128 << 10
	maxBufferBytes = 16 << 10
	flushAfter     = time.Second
	maxFieldBytes  = 320 // of a text in an event
)

// Journal has the logs of all VMs of a host. It is safe for concurrent use. A nil *Journal keeps nothing.
type Journal struct {
	dir    string
	logger *slog.Logger

	mu      sync.Mutex
	of      map[gateway.ID]*log
	removed map[gateway.ID]struct{} // never opened again: UUIDs are never used twice
	closed  bool
}

// Open opens the logs in dir, which is made with the first event.
func Open(dir string, logger *slog.Logger) *Journal {
	return &Journal{dir: dir, logger: logger, of: map[gateway.ID]*log{}, removed: map[gateway.ID]struct{}{}}
}

// Add adds an event to a VM's log, with the time of now. It waits for the disk once in some hundred events.
func (j *Journal) Add(id gateway.ID, e gateway.MailEvent) {
	if j == nil {
		return
	}
	l := j.log(id)
	if l == nil {
		return
	}
	e.Time = time.Now().UTC().Truncate(time.Millisecond)
	for _, text := range []*string{&e.QueueID, &e.From, &e.To, &e.Remote, &e.Reply} {
		*text = clean(*text)
	}
	line, err := json.Marshal(e)
	if err != nil {
		return // it has no field that fails
	}
	l.add(e.Kind, append(line, '\n'))
}

// List returns a VM's events, the newest first, at most limit of them (all when limit is 0).
func (j *Journal) List(id gateway.ID, limit int) ([]gateway.MailEvent, error) {
	all := []gateway.MailEvent{} // an empty list is [] in JSON
	if j == nil {
		return all, nil
	}
	l := j.log(id)
	if l == nil {
		return all, nil
	}
	text, err := l.read()
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(text) {
		var e gateway.MailEvent
		if json.Unmarshal(line, &e) == nil {
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b gateway.MailEvent) int { return cmp.Compare(a.Time.UnixMilli(), b.Time.UnixMilli()) })
	slices.Reverse(all)
	if limit > 0 {
		all = all[:min(limit, len(all))]
	}
	return all, nil
}

// Remove deletes a VM's log. A missing one is no error.
func (j *Journal) Remove(id gateway.ID) error {
	j.mu.Lock()
	l := j.of[id]
	delete(j.of, id)
	j.removed[id] = struct{}{}
	j.mu.Unlock()
	if l != nil {
		l.remove()
	}
	if err := os.RemoveAll(filepath.Join(j.dir, id.String())); err != nil {
		return fmt.Errorf("remove log of mail: %w", err)
	}
	return nil
}

// Close writes what is in memory. Events that come later are lost.
func (j *Journal) Close() {
	j.mu.Lock()
	j.closed = true
	all := j.of
	j.of = nil
	j.mu.Unlock()
	for _, l := range all {
		l.end()
	}
}

// log returns a VM's log; nil if it has none any more.
func (j *Journal) log(id gateway.ID) *log {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, gone := j.removed[id]; gone || j.closed || id == (gateway.ID{}) {
		return nil
	}
	l, ok := j.of[id]
	if !ok {
		l = &log{dir: filepath.Join(j.dir, id.String()), logger: j.logger.With("vm_id", id.String())}
		l.rings[0].name, l.rings[1].name = "mail", "refused"
		j.of[id] = l
	}
	return l
}

// log is that of one VM.
type log struct {
	dir    string
	logger *slog.Logger

	mu     sync.Mutex
	rings  [2]ring
	timer  *time.Timer // while something is in memory
	failed bool        // the last write
	ended  bool

	removed bool // with its directory
}

// ring is a file that begins anew when it is full.
type ring struct {
	name   string
	buf    []byte
	opened bool // a line that a crash has cut was ended
}

func (l *log) add(kind gateway.MailEventKind, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	r := &l.rings[0]
	if kind == gateway.MailRefused {
		r = &l.rings[1]
	}
	r.buf = append(r.buf, line...)
	switch {
	case len(r.buf) >= maxBufferBytes:
		l.flush(r)
	case l.timer == nil:
		l.timer = time.AfterFunc(flushAfter, l.flushAll)
	}
}

func (l *log) flushAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	if l.ended {
		return
	}
	for i := range l.rings {
		l.flush(&l.rings[i])
		l.rings[i].buf = nil // a VM without mail holds no memory
	}
}

// flush writes what a ring has in memory, unless the log was removed, so that nothing of it comes back. mu must be held.
func (l *log) flush(r *ring) {
	if len(r.buf) == 0 || l.removed {
		return
	}
	err := r.write(l.dir)
	r.buf = r.buf[:0]
	if err != nil && !l.failed {
		l.logger.Warn("log of mail not written", "err", err)
	}
	l.failed = err != nil
}

func (r *ring) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	path := filepath.Join(dir, r.name)
	if info, err := os.Stat(path); err == nil && info.Size()+int64(len(r.buf)) > maxFileBytes {
		if err := os.Rename(path, path+".old"); err != nil {
			return fmt.Errorf("rename file: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	text := r.buf
	if !r.opened {
		text = append([]byte("\n"), text...)
		r.opened = true
	}
	_, err = f.Write(text)
	if err != nil {
		r.opened = false // the line may be cut
	}
	return errors.Join(err, f.Close())
}

// read returns all lines, the older files first.
func (l *log) read() (text []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.rings {
		l.flush(&l.rings[i])
		for _, suffix := range []string{".old", ""} {
			part, err := os.ReadFile(filepath.Join(l.dir, l.rings[i].name+suffix))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("read log of mail: %w", err)
			}
			text = append(append(text, part...), '\n')
		}
	}
	return text, nil
}

// end ends the log, and writes what is in memory.
func (l *log) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	for i := range l.rings {
		l.flush(&l.rings[i])
	}
}

// remove ends the log. Who still reads it writes nothing of it any more.
func (l *log) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	l.removed = true
}

// stop makes later events be lost. mu must be held.
func (l *log) stop() {
	l.ended = true
	if l.timer != nil {
		l.timer.Stop()
	}
}

// clean makes one line of text without control characters.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, s)
	if len(s) <= maxFieldBytes {
		return s
	}
	s = s[:maxFieldBytes]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}
