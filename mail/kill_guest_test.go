package mail

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// childGuest is the environment variable with the address, the key file and the host key of the guest
// that is childVMs' first one.
const childGuest = "LODGE_MAIL_TEST_GUEST"

// A daemon that is killed again and again while it delivers, with a mail reader that moves new mail to
// cur at once, brings every message once. Between the kills the guest's disk goes back, and the mailbox with it.
func TestKillWhileDelivering(t *testing.T) {
	g := newGuest(t)
	g.makeMaildir(t)
	g.up(t)
	t.Setenv(childGuest, g.addr+"\n"+g.keyFile+"\n"+g.hostKey)
	dir, vms := t.TempDir(), []gateway.ID{gateway.NewID(), gateway.NewID()}
	store, err := mailbox.Open(dir, slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, err)
	const messages = 300
	for i := range messages {
		put(t, store, vms[0], fmt.Sprint("message ", i))
	}
	store.Close()
	var reading sync.WaitGroup
	var disk sync.Mutex
	stop := make(chan struct{})
	reading.Go(func() { readMail(t, g, &disk, stop) })
	saved := checkpoint{disk: filepath.Join(t.TempDir(), "disk")}
	cur := func() int { return len(files(t, filepath.Join(g.home, "Maildir/cur"))) }
	for before := 0; before < messages; before = cur() {
		_, _, kill := child(t, dir, vms)
		want := min(before+5+rand.IntN(30), messages)
		gatewaytest.WaitFor(t, "progress", func() bool { return cur() >= want })
		kill()
		disk.Lock()
		saved.next(t, g, dir, vms[0])
		disk.Unlock()
	}
	if saved.rewinds < 2 {
		t.Errorf("%d rewinds", saved.rewinds)
	}
	f := start(t, dir, func(c *Config) { c.SSHKeyFile, c.Dial = g.keyFile, g.dialVM })
	vm := f.addAs(t, "hello", vms[0], g.hostKey)
	f.deliverTo(t, vm, "the last") // marks that the last kill left stay until the guest is dialed again
	gatewaytest.WaitFor(t, "all are delivered", func() bool { return len(pending(t, f, vm)) == 0 && cur() > messages })
	close(stop)
	reading.Wait()
	if n, left := cur(), files(t, filepath.Join(g.home, "Maildir/new")); n != messages+1 || len(left) > 0 {
		t.Errorf("%d files in cur, want %d; in new %v", n, messages+1, left)
	}
	leftNothing(t, filepath.Join(g.home, "Maildir/tmp"))
}

// checkpoint is a copy of the guest's mail with the mark of it.
type checkpoint struct {
	disk    string
	mark    string
	calls   int
	rewinds int
}

// next takes a checkpoint, or goes back to the last one, in turns. The daemon does not run.
func (c *checkpoint) next(t *testing.T, g *guest, dir string, vm gateway.ID) {
	t.Helper()
	store, err := mailbox.Open(dir, slog.New(slog.DiscardHandler))
	gatewaytest.Must(t, err)
	defer store.Close()
	g.awaitNobody(t) // else a copy is of no one moment
	maildir := filepath.Join(g.home, "Maildir")
	c.calls++
	switch {
	case c.calls%3 == 1:
		c.mark = gateway.NewID().String()
		release, err := store.Mark(vm, c.mark)
		gatewaytest.Must(t, err)
		copyMail(t, maildir, c.disk)
		release()
	case c.calls%3 == 0 && c.rewinds < 5:
		c.rewinds++
		copyMail(t, c.disk, maildir)
		gatewaytest.Must(t, store.Rewind(vm, c.mark))
	}
}

// awaitNobody waits until the sessions of the guest's user have ended, after what sent requests to them has.
func (g *guest) awaitNobody(t *testing.T) {
	t.Helper()
	gatewaytest.WaitFor(t, "the end of all sessions", func() bool {
		processes, err := filepath.Glob("/proc/[0-9]*")
		gatewaytest.Must(t, err)
		return !slices.ContainsFunc(processes, func(path string) bool {
			info, err := os.Stat(path)
			return err == nil && info.Sys().(*syscall.Stat_t).Uid == guestUID
		})
	})
}

// copyMail replaces a directory by a copy of another one, with the owners.
func copyMail(t *testing.T, from, to string) {
	t.Helper()
	gatewaytest.Must(t, os.RemoveAll(to))
	out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput()
	if err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// readMail moves new mail to cur, as mail readers do.
func readMail(t *testing.T, g *guest, disk *sync.Mutex, stop chan struct{}) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	once := func() {
		disk.Lock()
		defer disk.Unlock()
		for _, name := range files(t, filepath.Join(g.home, "Maildir/new")) {
			if err := os.Rename(filepath.Join(g.home, "Maildir/new", name), filepath.Join(g.home, "Maildir/cur", name+":2,S")); err != nil {
				t.Error(err)
			}
		}
	}
	for {
		once()
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// put records a message for a VM.
func put(tb testing.TB, store *mailbox.Store, vm gateway.ID, body string) {
	tb.Helper()
	st, err := store.Stage()
	gatewaytest.Must(tb, err)
	defer st.Remove()
	_, err = fmt.Fprintf(st, "Subject: x\r\n\r\n%s\r\n", body)
	gatewaytest.Must(tb, err)
	now := time.Now()
	gatewaytest.Must(tb, store.Commit(st, []mailbox.Letter{{VM: vm, QueueID: mailbox.NewQueueID(now), From: "a@b.c", Rcpt: "x@y.z", Received: now}}))
}
