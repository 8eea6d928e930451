package imapd

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// fixture is a server with one VM and its mailbox. It does not listen.
type fixture struct {
	*Server
	vm  gateway.Identity
	box *mailbox.Box
	dir string
	log *gatewaytest.Log
}

// received is the internal date of all messages.
var received = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newFixture(t *testing.T, messages ...string) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), log: new(gatewaytest.Log)}
	directory := gatewaytest.NewDirectory(t, new(gatewaytest.Records))
	machine, err := directory.Create(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running})
	gatewaytest.Must(t, err)
	f.vm = machine.Identity
	store, err := mailbox.Open(f.dir, f.log.Logger())
	gatewaytest.Must(t, err)
	t.Cleanup(store.Close)
	f.box, err = store.Box(f.vm.ID)
	gatewaytest.Must(t, err)
	f.Server = New(Config{Directory: directory, Store: store, Limits: DefaultLimits(), Logger: f.log.Logger(), MaxMessageBytes: 1 << 20, Subject: func([]byte) string { return "" }})
	for _, text := range messages {
		f.put(t, text)
	}
	return f
}

func (f *fixture) put(t *testing.T, text string) {
	t.Helper()
	staged, err := f.config.Store.Stage()
	gatewaytest.Must(t, err)
	defer staged.Remove()
	_, err = io.WriteString(staged, text)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, f.config.Store.Commit(staged, []mailbox.Letter{{VM: f.vm.ID, QueueID: mailbox.NewQueueID(time.Now()), Received: received}}))
}

// file is the path of a message's body, which has one of its own above 1 MiB.
func (f *fixture) file(t *testing.T, uid uint32) string {
	t.Helper()
	for _, e := range f.box.Snapshot().Entries.All() {
		if e.UID == uid {
			return filepath.Join(f.dir, f.vm.ID.String(), "big", e.QueueID)
		}
	}
	t.Fatalf("no message with UID %d", uid)
	return ""
}

// open returns a session in which INBOX is selected. It has no connection.
func (f *fixture) open(t *testing.T) *session {
	t.Helper()
	folders, err := f.config.Store.Folders(f.vm.ID)
	gatewaytest.Must(t, err)
	s := &session{server: f.Server, vm: f.vm, folders: folders}
	_, err = s.Select(mailbox.Inbox, &imap.SelectOptions{})
	gatewaytest.Must(t, err)
	return s
}
