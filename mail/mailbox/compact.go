package mailbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lodge/gateway/durable"
)

// compact replaces the index by one without stale records. The caller holds b.mu or is the only
// user of b.
func (b *Box) compact() error {
	if b.validity == 0 {
		b.validity = uint32(time.Now().Unix()) // until 2106; a mailbox is created once, so it never repeats
	}
	path := filepath.Join(b.dir, "index")
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make index: %w", err)
	}
	fresh := &Box{byID: map[string]uint32{}}
	size, err := b.copyTo(f, fresh)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = f.Close()                 // it is removed below
		_ = removeFile(path + ".new") // the next compaction overwrites it otherwise
		return fmt.Errorf("write index: %w", err)
	}
	if b.index != nil {
		_ = b.index.Close() // the new index has all of it
	}
	b.index, b.size, b.reserved, b.lines, b.entries = f, size, size, fresh.lines, fresh.entries
	return errors.Join(durable.Sync(b.dir), durable.Sync(filepath.Dir(b.dir)))
}

// copyTo writes b's live records to f, and applies them to fresh at their new offsets.
func (b *Box) copyTo(f *os.File, fresh *Box) (int64, error) {
	w := bufio.NewWriterSize(f, 256<<10)
	size := int64(0)
	put := func(r record) error {
		line, err := r.encode(nil)
		if err != nil {
			return err
		}
		fresh.apply(r, size, len(line))
		size += int64(len(line))
		_, err = w.Write(line)
		return err
	}
	err := put(record{Op: opHead, Validity: b.validity, UID: b.nextUID})
	for i := 0; i < len(b.entries) && err == nil; i++ {
		var r record
		if r, err = b.read(b.entries[i]); err == nil {
			r.Flags = b.entries[i].Flags
			err = put(r)
			fresh.entries[i].Mod = b.entries[i].Mod
		}
	}
	if err == nil {
		err = put(record{Op: opCursor, UID: b.cursor})
	}
	return size, errors.Join(err, w.Flush())
}

func (b *Box) compactOrLog() {
	if err := b.compact(); err != nil {
		b.lines = 0 // try again only after as many more changes
		b.logger.Warn("mailbox index not compacted", "err", err)
	}
}
