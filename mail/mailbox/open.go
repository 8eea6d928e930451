package mailbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// openBox reads a mailbox's index, repairs what a crash has left, and creates a missing mailbox.
func openBox(dir string, logger *slog.Logger) (*Box, error) {
	b := &Box{dir: dir, logger: logger, byID: map[string]uint32{}, nextUID: 1, changed: make(chan struct{})}
	b.idle = sync.NewCond(&b.mu)
	if err := os.MkdirAll(filepath.Join(dir, "msg"), 0o700); err != nil {
		return nil, fmt.Errorf("make mailbox: %w", err)
	}
	var err error
	if b.bodies, err = os.Open(filepath.Join(dir, "msg")); err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	if err := b.restore(); err != nil {
		b.closeFiles()
		return nil, err
	}
	return b, nil
}

// restore loads the index. It rewrites an index that is missing, damaged or mostly stale.
func (b *Box) restore() error {
	damage, err := b.load()
	if err != nil {
		return err
	}
	lost, err := b.reconcile(damage.inside)
	if err != nil {
		return err
	}
	if b.index == nil || b.validity == 0 || damage.any() || lost || b.lines > 1000+2*len(b.entries) {
		return b.compact()
	}
	return nil
}

// damage counts the bad lines of an index.
type damage struct {
	torn   int // behind the last good record: the effect of a crash
	inside int // with good records behind them: the effect of a failing disk
}

func (d damage) any() bool { return d.torn > 0 || d.inside > 0 }

// load reads the index into memory. It keeps every record with a correct checksum.
func (b *Box) load() (damage, error) {
	f, err := os.OpenFile(filepath.Join(b.dir, "index"), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return damage{}, nil
	}
	if err != nil {
		return damage{}, fmt.Errorf("open index: %w", err)
	}
	var d damage
	bad, offset := 0, int64(0)
	err = eachLine(f, func(line []byte, complete bool) {
		r, err := decode(line)
		if err != nil || !complete {
			bad++
		} else {
			d.inside += bad
			bad = 0
			b.apply(r, offset, len(line))
		}
		offset += int64(len(line))
	})
	if err != nil {
		_ = f.Close() // the read error is the one that matters
		return damage{}, fmt.Errorf("read index: %w", err)
	}
	b.index, b.size, d.torn = f, offset, bad
	if d.any() {
		b.logger.Warn("mailbox index repaired", "torn", d.torn, "damaged", d.inside)
	}
	return d, nil
}

// eachLine calls f for each line of r, newline included. complete is false for a last line without
// a newline, and for the pieces of a line longer than any record.
func eachLine(r io.Reader, f func(line []byte, complete bool)) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for {
		piece, err := br.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case err == nil:
			f(line, true)
		case errors.Is(err, bufio.ErrBufferFull) && len(line) < maxRecordBytes:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			f(line, false)
		case errors.Is(err, io.EOF):
			if len(line) > 0 {
				f(line, false)
			}
			return nil
		default:
			return fmt.Errorf("read line: %w", err)
		}
		line = line[:0]
	}
}

// reconcile compares records and bodies. A body without a record was never accepted: it is removed,
// unless the index was damaged inside. A record without a body cannot be served: it is removed and
// logged.
func (b *Box) reconcile(damaged int) (lost bool, err error) {
	names, err := os.ReadDir(filepath.Join(b.dir, "msg"))
	if err != nil {
		return false, fmt.Errorf("list messages: %w", err)
	}
	have := make(map[string]struct{}, len(names))
	for _, n := range names {
		have[n.Name()] = struct{}{}
		if _, known := b.byID[n.Name()]; known || damaged > 0 {
			continue
		}
		if err := removeFile(b.body(n.Name())); err != nil {
			return false, err
		}
	}
	var gone []uint32
	for _, e := range b.entries {
		if _, ok := have[e.QueueID]; !ok {
			b.logger.Error("message body is missing", "queue_id", e.QueueID)
			gone = append(gone, e.UID)
		}
	}
	b.expunge(gone)
	return len(gone) > 0, nil
}
