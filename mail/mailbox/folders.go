package mailbox

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"lodge/gateway"
)

// Folders are what IMAP shows of one VM: INBOX, which mail comes into, and folders beside it. It is safe for
// concurrent use.
type Folders struct {
	id    gateway.ID
	store *Store
	inbox *Box
	dir   string

	moving sync.Mutex // one Move at a time, so that no message is moved twice

	mu     sync.Mutex
	table  *folderTable // nil until it is read; replaced, never changed
	fresh  bool         // the table is not on disk
	boxes  map[uint32]*Box
	closed error

	room    sync.Mutex // taken before mu
	claimed int64      // bytes of messages on their way, see claim
}

// Folder is a folder as List has it.
type Folder struct {
	Name       string
	Special    bool // it exists from the start: Sent, Drafts, Trash, Archive, Junk
	Subscribed bool
}

func newFolders(s *Store, id gateway.ID, inbox *Box) *Folders {
	f := &Folders{id: id, store: s, inbox: inbox, dir: filepath.Join(inbox.dir, "folders"), boxes: map[uint32]*Box{}}
	inbox.folders = f
	return f
}

// Folders opens the mailbox of a VM as Box does, with its folders.
func (s *Store) Folders(id gateway.ID) (*Folders, error) {
	b, err := s.Box(id)
	if err != nil {
		return nil, err
	}
	return b.folders, nil
}

// Inbox returns the mailbox that mail comes into.
func (f *Folders) Inbox() *Box { return f.inbox }

// List returns the folders by name, without INBOX.
func (f *Folders) List() ([]Folder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return nil, err
	}
	all := make([]Folder, 0, len(f.table.Folders))
	for _, r := range f.table.Folders {
		all = append(all, Folder{Name: r.Name, Special: isSpecial(r.ID), Subscribed: !r.Unsubscribed})
	}
	slices.SortFunc(all, func(a, b Folder) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Open returns the mailbox of a folder, or INBOX. KindNotFound: there is none of that name.
func (f *Folders) Open(name string) (*Box, error) {
	name, err := FolderName(name)
	if err != nil {
		return nil, errNoFolder()
	}
	if name == Inbox {
		return f.inbox, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return nil, err
	}
	i := f.table.find(name)
	if i < 0 {
		return nil, errNoFolder()
	}
	if f.fresh { // what its UIDVALIDITY is must be on disk before a client sees it
		if err := f.writeTable(f.table); err != nil {
			return nil, err
		}
	}
	return f.open(f.table.Folders[i])
}

// open opens a folder's mailbox. The caller holds f.mu.
func (f *Folders) open(r folderRecord) (*Box, error) {
	if b, ok := f.boxes[r.ID]; ok {
		return b, nil
	}
	dir := f.path(r.ID)
	b := newBox(dir, filepath.Join(dir, "log"), f.inbox.logger)
	b.state.Validity, b.folders = r.Validity, f
	if err := b.restore(); err != nil {
		b.seal()
		return nil, withKind(fmt.Errorf("open folder: %w", err))
	}
	f.boxes[r.ID] = b
	return b, nil
}

func (f *Folders) path(id uint32) string {
	return filepath.Join(f.dir, strconv.FormatUint(uint64(id), 10))
}

// load reads the table once, and ends removals that a crash cut short. The caller holds f.mu.
func (f *Folders) load() error {
	if f.closed != nil {
		return f.closed
	}
	if f.table != nil {
		return nil
	}
	t, fresh, err := f.readTable()
	if err != nil {
		return err
	}
	f.table, f.fresh = t, fresh
	for _, id := range t.Removing {
		if err := os.RemoveAll(f.path(id)); err != nil {
			f.inbox.logger.Warn("removed folder not freed", "err", err)
		}
	}
	return nil
}

// change writes a changed table. f.mu is held meanwhile.
func (f *Folders) change(how func(*folderTable) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return err
	}
	t := f.table.clone()
	t.Removing = slices.DeleteFunc(t.Removing, func(id uint32) bool {
		_, err := os.Stat(f.path(id))
		return os.IsNotExist(err)
	})
	if err := how(t); err != nil {
		return err
	}
	if len(t.Folders) > MaxFolders {
		return gateway.Errorf(gateway.KindConflict, "there are at most %d folders", MaxFolders).WithHint("Delete some.")
	}
	return f.writeTable(t)
}

// Create makes a folder, and those above it that are missing. KindTaken: it exists. KindConflict: there would
// be more than MaxFolders.
func (f *Folders) Create(name string) error {
	name, err := FolderName(name)
	if err != nil {
		return err
	}
	return f.change(func(t *folderTable) error {
		if name == Inbox || t.find(name) >= 0 {
			return errFolderTaken()
		}
		t.add(name)
		return nil
	})
}

// Delete removes a folder and its mail, which is gone from the disk or recorded as removed when it returns.
// KindDenied: it exists from the start, or is INBOX. KindConflict: there are folders below it.
func (f *Folders) Delete(name string) error {
	var gone folderRecord
	err := f.change(func(t *folderTable) error {
		i, err := t.own(name)
		if err != nil {
			return err
		}
		gone = t.Folders[i]
		if slices.ContainsFunc(t.Folders, func(r folderRecord) bool { return below(r.Name, gone.Name) }) {
			return gateway.Errorf(gateway.KindConflict, "the folder has folders below it").WithHint("Delete those first.")
		}
		t.Folders = slices.Delete(t.Folders, i, i+1)
		t.Removing = append(t.Removing, gone.ID)
		return nil
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	b := f.boxes[gone.ID]
	delete(f.boxes, gone.ID)
	f.mu.Unlock()
	if b != nil {
		b.close(errNoFolder())
	}
	if err := os.RemoveAll(f.path(gone.ID)); err != nil { // the next start tries again
		f.inbox.logger.Warn("removed folder not freed", "err", err)
	}
	return nil
}

// own returns the index of a folder that clients may delete and rename.
func (t *folderTable) own(name string) (int, error) {
	name, err := FolderName(name)
	if err != nil {
		return 0, errNoFolder()
	}
	i := t.find(name)
	switch {
	case name == Inbox || i >= 0 && isSpecial(t.Folders[i].ID):
		return 0, gateway.Errorf(gateway.KindDenied, "%s cannot be deleted or renamed", name)
	case i < 0:
		return 0, errNoFolder()
	}
	return i, nil
}

// Rename renames a folder and those below it, in one step; its mail, UIDs and UIDVALIDITY stay. It fails as
// Create and Delete do.
func (f *Folders) Rename(name, to string) error {
	to, err := FolderName(to)
	if err != nil {
		return err
	}
	return f.change(func(t *folderTable) error {
		i, err := t.own(name)
		if err != nil {
			return err
		}
		old := t.Folders[i].Name
		switch {
		case to == Inbox || t.find(to) >= 0:
			return errFolderTaken()
		case below(to, old):
			return gateway.Invalid("a folder cannot be below itself")
		}
		for i := range t.Folders {
			r := &t.Folders[i]
			if r.Name != old && !below(r.Name, old) {
				continue
			}
			if r.Name, err = FolderName(to + r.Name[len(old):]); err != nil {
				return err
			}
		}
		for _, above := range parents(to) {
			t.add(above)
		}
		return nil
	})
}

// Subscribe sets whether LSUB shows a folder. That is a property of the folder: a rename keeps it.
func (f *Folders) Subscribe(name string, on bool) error {
	name, err := FolderName(name)
	if err != nil {
		return errNoFolder()
	}
	return f.change(func(t *folderTable) error {
		i := t.find(name)
		if i < 0 {
			return errNoFolder()
		}
		t.Folders[i].Unsubscribed = !on
		return nil
	})
}

// close closes INBOX and the folders. Later changes fail with reason.
func (f *Folders) close(reason error) {
	f.mu.Lock()
	boxes := f.boxes
	f.boxes, f.closed = nil, reason
	f.mu.Unlock()
	for _, b := range boxes {
		b.close(reason)
	}
	f.inbox.close(reason)
}

func errNoFolder() error { return gateway.Errorf(gateway.KindNotFound, "there is no such folder") }

func errFolderTaken() error {
	return gateway.Errorf(gateway.KindTaken, "there is a folder of that name")
}
