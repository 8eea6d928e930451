package mailbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func folders(tb testing.TB, s *Store, id gateway.ID) *Folders {
	tb.Helper()
	f, err := s.Folders(id)
	gatewaytest.Must(tb, err)
	return f
}

func folder(tb testing.TB, f *Folders, name string) *Box {
	tb.Helper()
	b, err := f.Open(name)
	gatewaytest.Must(tb, err)
	return b
}

func names(tb testing.TB, f *Folders) (all []string) {
	tb.Helper()
	list, err := f.List()
	gatewaytest.Must(tb, err)
	for _, one := range list {
		all = append(all, one.Name)
	}
	return all
}

func add(tb testing.TB, b *Box, body string, flags Flags) uint32 {
	tb.Helper()
	uid, err := tryAdd(b, body, flags)
	gatewaytest.Must(tb, err)
	return uid
}

func tryAdd(b *Box, body string, flags Flags) (uint32, error) {
	st, err := b.folders.store.Stage()
	if err != nil {
		return 0, err
	}
	defer st.Remove()
	if _, err := io.WriteString(st, body); err != nil {
		return 0, err
	}
	return b.Append(st, flags, time.UnixMilli(1764000000000), "subject")
}

// texts are the messages of a mailbox, in order.
func texts(tb testing.TB, b *Box) (all []string) {
	tb.Helper()
	for _, e := range b.Snapshot().Entries.All() {
		c, err := b.Open(e.UID)
		gatewaytest.Must(tb, err)
		text, err := io.ReadAll(c)
		gatewaytest.Must(tb, err)
		gatewaytest.Must(tb, c.Close())
		all = append(all, string(text))
	}
	return all
}

const standard = "Archive Drafts Junk Sent Trash"

func TestFolderNames(t *testing.T) {
	for name, want := range map[string]string{
		"Work": "Work", "inbox": "INBOX", "InBox/a": "INBOX/a", "a/inbox": "a/inbox", "é/日本": "é/日本", "a b.c": "a b.c",
		strings.Repeat("a", MaxFolderBytes): strings.Repeat("a", MaxFolderBytes), strings.Repeat("a/", MaxFolderDepth-1) + "a": strings.Repeat("a/", MaxFolderDepth-1) + "a",
		"": "", "/a": "", "a/": "", "a//b": "", "..": "", "a/./b": "", "a\x00": "", "a\nb": "", "a\x7f": "", "a\u0085": "", "a*": "", "%": "", "\xff": "", "a\u2028": "",
		strings.Repeat("a", MaxFolderBytes+1): "", strings.Repeat("a/", MaxFolderDepth) + "a": "",
	} {
		got, err := FolderName(name)
		if got != want || (err != nil) != (want == "") || err != nil && gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%.50q: %.50q, %v", name, got, err)
		}
	}
}

// A name that is accepted stays as it is when it is read again, and each level is a name too.
func FuzzFolderName(f *testing.F) {
	for _, name := range []string{"INBOX", "inbox/x", "a/b/c", "a//b", "..", "é", "\xff", "a\u2028b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := FolderName(name)
		if err != nil {
			if got != "" {
				t.Errorf("%q with %v", got, err)
			}
			return
		}
		if again, err := FolderName(got); err != nil || again != got || len(got) != len(name) {
			t.Errorf("%q became %q, then %q, %v", name, got, again, err)
		}
		for _, above := range parents(got) {
			if again, err := FolderName(above); err != nil || again != above || !below(got, above) {
				t.Errorf("%q above %q: %q, %v", above, got, again, err)
			}
		}
	})
}

// What is read of a table is written the same; anything else is an error, never a panic.
func FuzzFolderTable(f *testing.F) {
	good, err := newFolderTable().encode()
	gatewaytest.Must(f, err)
	f.Add(good)
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := decodeFolderTable(b)
		if err != nil {
			return
		}
		again, err := table.encode()
		gatewaytest.Must(t, err)
		if _, err := decodeFolderTable(again); err != nil {
			t.Errorf("%q: %v", again, err)
		}
	})
}

func TestFolders(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	f := folders(t, s, vm)
	if got := strings.Join(names(t, f), " "); got != standard {
		t.Fatalf("from the start: %s", got)
	}
	if _, err := os.Stat(f.dir); !os.IsNotExist(err) {
		t.Errorf("a list of the folders writes: %v", err)
	}
	gatewaytest.Must(t, f.Create("a/b/c"))
	gatewaytest.Must(t, f.Create("inbox/in"))
	add(t, folder(t, f, "a/b"), "in b", Seen)
	validity := folder(t, f, "a/b").Snapshot().Validity
	gatewaytest.Must(t, f.Rename("a", "x/y"))
	gatewaytest.Must(t, f.Subscribe("x/y/b", false))
	for what, kind := range map[string]gateway.Kind{
		kindOf(f.Create("x")): gateway.KindTaken, kindOf(f.Create("Inbox")): gateway.KindTaken, kindOf(f.Create("a//b")): gateway.KindInvalid,
		kindOf(f.Delete("x")): gateway.KindConflict, kindOf(f.Delete("Sent")): gateway.KindDenied, kindOf(f.Delete("INBOX")): gateway.KindDenied,
		kindOf(f.Delete("no")): gateway.KindNotFound, kindOf(f.Rename("x", "x/z")): gateway.KindInvalid, kindOf(f.Rename("x", "Sent")): gateway.KindTaken,
		kindOf(f.Rename("Junk", "Spam")): gateway.KindDenied, kindOf(f.Rename("no", "z")): gateway.KindNotFound, kindOf(f.Subscribe("no", true)): gateway.KindNotFound,
		kindOf(f.Rename("x", strings.Repeat("z", MaxFolderBytes-2))): gateway.KindInvalid,
	} {
		if what != string(kind) {
			t.Errorf("%s, want %s", what, kind)
		}
	}
	s.Close()
	f = folders(t, open(t, dir), vm)
	if got, want := strings.Join(names(t, f), " "), "Archive Drafts INBOX/in Junk Sent Trash x x/y x/y/b x/y/b/c"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	b := folder(t, f, "x/y/b")
	if got := texts(t, b); len(got) != 1 || got[0] != "in b" || b.Snapshot().Validity != validity {
		t.Errorf("the renamed folder has %q, UIDVALIDITY %d, was %d", got, b.Snapshot().Validity, validity)
	}
	list, err := f.List()
	gatewaytest.Must(t, err)
	if i := slices.IndexFunc(list, func(f Folder) bool { return f.Name == "x/y/b" }); list[i].Subscribed || !list[i-1].Subscribed {
		t.Errorf("%+v", list)
	}
}

func kindOf(err error) string { return string(gateway.KindOf(err)) }

// A folder that was removed is gone from the disk, also if a crash came in between, and a new one of its name
// has another UIDVALIDITY. Who has it open gets an error.
func TestFolderRemoved(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	f := folders(t, s, vm)
	gatewaytest.Must(t, f.Create("old"))
	b := folder(t, f, "old")
	uid := add(t, b, "gone", 0)
	before := b.Snapshot().Validity
	gatewaytest.Must(t, f.Delete("old"))
	if err := b.SetFlags([]uint32{uid}, Seen, 0); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("a change of a removed folder: %v", err)
	}
	if _, err := f.Open("old"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("opened: %v", err)
	}
	gatewaytest.Must(t, f.Create("old"))
	if after := folder(t, f, "old").Snapshot().Validity; after <= before || folder(t, f, "old").Snapshot().Entries.Len() != 0 {
		t.Errorf("UIDVALIDITY %d after %d", after, before)
	}
	if left := glob(filepath.Join(f.dir, "6", "*")); len(left) != 0 {
		t.Errorf("left on disk: %v", left)
	}
	gatewaytest.Must(t, f.change(func(t *folderTable) error { // as a crash leaves it
		i := t.find("old")
		t.Removing = append(t.Removing, t.Folders[i].ID)
		t.Folders = slices.Delete(t.Folders, i, i+1)
		return nil
	}))
	s.Close()
	f = folders(t, open(t, dir), vm)
	if got := strings.Join(names(t, f), " "); got != standard || len(glob(filepath.Join(f.dir, "[1-9]*"))) != 0 {
		t.Errorf("%s, %v", got, glob(filepath.Join(f.dir, "[1-9]*")))
	}
}

// Without its table, or with one that is damaged, no mail is lost: folders are found by their directories.
func TestFolderTableDamaged(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"cut":     func(path string) error { return os.Truncate(path, 30) },
		"flipped": func(path string) error {
			b, err := os.ReadFile(path)
			b[20] ^= 1
			return errors.Join(err, os.WriteFile(path, b, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, vm := t.TempDir(), gateway.NewID()
			s := open(t, dir)
			f := folders(t, s, vm)
			gatewaytest.Must(t, f.Create("mine"))
			add(t, folder(t, f, "mine"), "in mine", 0)
			add(t, folder(t, f, "Sent"), "in Sent", 0)
			validity := folder(t, f, "mine").Snapshot().Validity
			s.Close()
			gatewaytest.Must(t, spoil(filepath.Join(f.dir, tableName)))
			f = folders(t, open(t, dir), vm)
			if got, want := strings.Join(names(t, f), " "), "Archive Drafts Junk Recovered 6 Sent Trash"; got != want {
				t.Fatalf("%s, want %s", got, want)
			}
			b := folder(t, f, "Recovered 6")
			if got := texts(t, b); len(got) != 1 || got[0] != "in mine" || b.Snapshot().Validity != validity {
				t.Errorf("%q, UIDVALIDITY %d", got, b.Snapshot().Validity)
			}
			if got := texts(t, folder(t, f, "Sent")); len(got) != 1 || got[0] != "in Sent" {
				t.Errorf("Sent has %q", got)
			}
			gatewaytest.Must(t, f.Rename("Recovered 6", "mine"))
			gatewaytest.Must(t, f.Create("next"))
			if got := texts(t, folder(t, f, "next")); len(got) != 0 {
				t.Errorf("a new folder has %q", got)
			}
		})
	}
}

func TestFolderLimit(t *testing.T) {
	f := folders(t, open(t, t.TempDir()), gateway.NewID())
	made := len(specialFolders())
	for i := 0; ; i++ {
		err := f.Create(fmt.Sprintf("top%d/one", i))
		if gateway.KindOf(err) == gateway.KindConflict {
			break
		}
		gatewaytest.Must(t, err)
		made += 2
	}
	if made > MaxFolders || made < MaxFolders-1 || len(names(t, f)) != made {
		t.Errorf("%d folders were made, %d are there", made, len(names(t, f)))
	}
	gatewaytest.Must(t, f.Delete("top0/one"))
	gatewaytest.Must(t, f.Create("top0/two"))
}
