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
	"time"

	"lodge/gateway/durable"
)

// folderTable is the file folders/table: which folders there are. The file is eight hex digits of CRC-32C over
// the JSON, a space, the JSON, a newline.
type folderTable struct {
	Next     uint32         `json:"next"`     // ID of the next folder; none is used again
	Validity uint32         `json:"validity"` // the last UIDVALIDITY that was given
	Folders  []folderRecord `json:"folders"`
	Removing []uint32       `json:"removing,omitempty"` // IDs of folders whose directories are to be removed
}

// folderRecord is a folder, whose mail is in folders/<ID>.
type folderRecord struct {
	ID           uint32 `json:"id"`
	Name         string `json:"name"`
	Validity     uint32 `json:"validity,omitempty"` // UIDVALIDITY; 0: the one in its log
	Unsubscribed bool   `json:"unsubscribed,omitempty"`
}

// specialFolders are those that exist from the start, by ID from 1 on. They have these names for ever.
func specialFolders() []string { return []string{"Sent", "Drafts", "Trash", "Archive", "Junk"} }

func isSpecial(id uint32) bool { return id <= uint32(len(specialFolders())) } //nolint:gosec // five

// newFolderTable is that of a VM that has no folders of its own.
func newFolderTable() *folderTable {
	t := &folderTable{Next: 1, Validity: uint32(time.Now().Unix())} //nolint:gosec // until 2106
	for _, name := range specialFolders() {
		t.Folders = append(t.Folders, folderRecord{ID: t.Next, Name: name, Validity: t.Validity})
		t.Next++
	}
	return t
}

// clone returns a copy to change.
func (t *folderTable) clone() *folderTable {
	c := *t
	c.Folders, c.Removing = slices.Clone(t.Folders), slices.Clone(t.Removing)
	return &c
}

// find returns the index of a folder; -1 if there is none of that name.
func (t *folderTable) find(name string) int {
	return slices.IndexFunc(t.Folders, func(r folderRecord) bool { return r.Name == name })
}

// add adds a folder, and those above it that are missing. No UIDVALIDITY is given twice, so that a folder
// is never taken for a removed one of its name.
func (t *folderTable) add(name string) {
	for _, n := range append(parents(name), name) {
		if n == Inbox || t.find(n) >= 0 {
			continue
		}
		t.Validity = max(t.Validity+1, uint32(time.Now().Unix())) //nolint:gosec // until 2106
		t.Folders = append(t.Folders, folderRecord{ID: t.Next, Name: n, Validity: t.Validity})
		t.Next++
	}
}

func (t *folderTable) encode() ([]byte, error) {
	payload, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encode folders: %w", err)
	}
	return fmt.Appendf(nil, "%08x %s\n", checksum(payload), payload), nil
}

var errTable = errors.New("damaged table of folders")

func decodeFolderTable(b []byte) (*folderTable, error) {
	const framing = 9 // checksum, space
	if len(b) < framing+1 || b[8] != ' ' || b[len(b)-1] != '\n' {
		return nil, errTable
	}
	sum, err := strconv.ParseUint(string(b[:8]), 16, 32)
	payload := b[framing : len(b)-1]
	if err != nil || uint64(checksum(payload)) != sum {
		return nil, errTable
	}
	t := new(folderTable)
	if err := json.Unmarshal(payload, t); err != nil {
		return nil, errTable
	}
	return t, nil
}

// readTable reads the table of dir. Folders on disk that it does not have are added to it: their mail is
// never removed by inference. fresh: there is no table on disk that has these folders.
func (f *Folders) readTable() (t *folderTable, fresh bool, err error) {
	path := filepath.Join(f.dir, tableName)
	b, err := os.ReadFile(path)
	if err == nil {
		if t, err = decodeFolderTable(b); err != nil {
			f.inbox.logger.Error("table of folders damaged", "path", path)
			if err = os.Rename(path, path+".damaged"); err != nil {
				return nil, false, fmt.Errorf("keep table of folders: %w", err)
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("read table of folders: %w", err)
	}
	if t == nil {
		t, fresh = newFolderTable(), true
	}
	found, err := f.onDisk()
	if err != nil {
		return nil, false, err
	}
	for _, id := range found {
		known := func(r folderRecord) bool { return r.ID == id }
		if slices.ContainsFunc(t.Folders, known) || slices.Contains(t.Removing, id) {
			continue
		}
		name := fmt.Sprintf("Recovered %d", id)
		f.inbox.logger.Error("folder without a name found", "path", filepath.Join(f.dir, strconv.Itoa(int(id))), "err", "its name is now "+name)
		t.Folders = append(t.Folders, folderRecord{ID: id, Name: name})
		t.Next, fresh = max(t.Next, id+1), true
	}
	return t, fresh, nil
}

const tableName = "table"

// onDisk returns the IDs of the folders that have a directory.
func (f *Folders) onDisk() (ids []uint32, err error) {
	names, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list folders: %w", err)
	}
	for _, n := range names {
		id, err := strconv.ParseUint(n.Name(), 10, 32)
		if err == nil && id > 0 && n.IsDir() {
			ids = append(ids, uint32(id))
		}
	}
	return ids, nil
}

// writeTable replaces the table, synced. The caller holds f.mu.
func (f *Folders) writeTable(t *folderTable) error {
	b, err := t.encode()
	if err != nil {
		return err
	}
	if err := os.Mkdir(f.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folders: %w", err)
	}
	if f.fresh { // a process that was killed may have made it without that
		if err := durable.Sync(filepath.Dir(f.dir)); err != nil {
			return fmt.Errorf("make folders: %w", err)
		}
	}
	if err := durable.WriteFile(filepath.Join(f.dir, tableName), b, 0o600); err != nil {
		return withKind(fmt.Errorf("write table of folders: %w", err))
	}
	f.table, f.fresh = t, false
	return nil
}
