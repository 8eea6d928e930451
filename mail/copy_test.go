package mail

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// What was delivered already, before a crash kept the cursor from moving, is not delivered again, even
// if the user's mail reader has moved or removed it meanwhile.
func TestNoSecondCopy(t *testing.T) {
	for name, row := range map[string]struct{ left, place, suffix string }{
		"crash after link":                 {"tmp/ID", "new", ""},
		"crash after link, moved":          {"tmp/ID", "cur", ":2,"},
		"crash after link, moved and read": {"tmp/ID", "cur", ":2,FS"},
		"crash after mark":                 {"tmp/ID.done", "new", ""},
		"crash after mark, moved":          {"tmp/ID.done", "cur", ":2,a-flag-of-a-reader"},
		"crash after mark, removed":        {"tmp/ID.done", "", ""},
		"crash in the rename":              {"tmp/ID tmp/ID.done", "new", ""},
		"crash of an older daemon":         {"", "new", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			f, vm := withGuest(t, t.TempDir(), g)
			id := f.deliverTo(t, vm, "once")
			g.makeMaildir(t)
			put := func(name string) {
				path := filepath.Join(g.home, "Maildir", name)
				write(t, path, []byte("there already"))
				gatewaytest.Must(t, os.Chown(path, guestUID, guestUID))
			}
			for name := range strings.FieldsSeq(row.left) {
				put(strings.ReplaceAll(name, "ID", id))
			}
			want := 0
			if row.place != "" {
				put(row.place + "/" + id + row.suffix)
				want = 1
			}
			g.up(t)
			f.started(t, vm)
			f.awaitDelivery(t, vm, id)
			if all := append(files(t, g.home+"/Maildir/new"), files(t, g.home+"/Maildir/cur")...); len(all) != want {
				t.Errorf("in the Maildir: %v", all)
			}
			leftNothing(t, g.home+"/Maildir/tmp")
		})
	}
}

// What an attempt has begun and not linked is delivered.
func TestBegunIsDelivered(t *testing.T) {
	g := newGuest(t)
	f, vm := withGuest(t, t.TempDir(), g)
	id := f.deliverTo(t, vm, "once")
	g.makeMaildir(t)
	path := filepath.Join(g.home, "Maildir/tmp", id)
	write(t, path, []byte("half of"))
	gatewaytest.Must(t, os.Chown(path, guestUID, guestUID))
	g.up(t)
	f.started(t, vm)
	f.awaitDelivery(t, vm, id)
	if got, err := os.ReadFile(filepath.Join(g.home, "Maildir/new", id)); err != nil || string(got) != string(f.read(t, vm, id)) {
		t.Errorf("the copy: %q, %v", got, err)
	}
	leftNothing(t, g.home+"/Maildir/tmp")
}
