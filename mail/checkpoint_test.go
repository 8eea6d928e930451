package mail

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A guest's disk goes back. What came after the mark is delivered once more; what the old disk has is not doubled,
// wherever a mail reader has put it, and what was removed meanwhile stays so.
func TestRewind(t *testing.T) {
	g := newGuest(t)
	g.up(t)
	dir := t.TempDir()
	f, vm := withGuest(t, dir, g)
	maildir := filepath.Join(g.home, "Maildir")
	deliver := func(body string) string {
		id := f.deliverTo(t, vm, body)
		f.awaitDelivery(t, vm, id)
		return id
	}
	kept, moved := deliver("in new"), deliver("in cur")
	gatewaytest.Must(t, os.Rename(filepath.Join(maildir, "new", moved), filepath.Join(maildir, "cur", moved+":2,S")))

	first, second := gateway.CheckpointID(gateway.NewID().String()), gateway.CheckpointID(gateway.NewID().String())
	release, err := f.Mark(t.Context(), vm.ID, first)
	gatewaytest.Must(t, err)
	disk := filepath.Join(dir, "disk")
	copyMail(t, maildir, disk)
	release()
	late, removed := deliver("after the mark"), deliver("removed")
	_, err = f.RemoveMessages(t.Context(), vm.ID, gateway.MailRemoval{QueueIDs: []string{removed}})
	gatewaytest.Must(t, err)
	release, err = f.Mark(t.Context(), vm.ID, second) // to undo the undo
	gatewaytest.Must(t, err)
	lateDisk := filepath.Join(dir, "late disk")
	copyMail(t, maildir, lateDisk)

	for _, step := range []struct {
		id   gateway.CheckpointID
		disk string
		want []string // in new
	}{{first, disk, []string{kept, late}}, {second, lateDisk, []string{kept, late, removed}}, {first, disk, []string{kept, late}}} {
		g.down()
		g.cut()
		g.awaitNobody(t)
		copyMail(t, step.disk, maildir)
		for range 2 {
			gatewaytest.Must(t, f.Rewind(t.Context(), vm.ID, step.id))
		}
		release() // a rewind does not wait for it
		g.up(t)
		f.started(t, vm)
		f.awaitDelivery(t, vm, late)
		next := deliver("proof that delivery goes on")
		slices.Sort(step.want)
		if got := files(t, filepath.Join(maildir, "new")); !slices.Equal(got, append(slices.Clone(step.want), next)) {
			t.Errorf("new has %v, want %v and %s", got, step.want, next)
		}
		if got := files(t, filepath.Join(maildir, "cur")); !slices.Equal(got, []string{moved + ":2,S"}) {
			t.Errorf("cur has %v", got)
		}
		_, err := f.RemoveMessages(t.Context(), vm.ID, gateway.MailRemoval{QueueIDs: []string{next}})
		gatewaytest.Must(t, err)
	}
	if all := f.list(t, vm); len(all) != 3 {
		t.Errorf("the record has %d messages", len(all))
	}
}

// A fork needs the mark of its source, and gets no mail of it. Marks are listed and dropped by VM.
func TestForkedMailbox(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	one, fork := f.add(t, "one"), f.add(t, "fork")
	f.deliverTo(t, one, "old")
	id := gateway.CheckpointID(gateway.NewID().String())
	notFound := func(err error) {
		t.Helper()
		if gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("error %v", err)
		}
	}
	notFound(f.Fork(t.Context(), one.ID, id, fork.ID))
	notFound(f.Rewind(t.Context(), one.ID, id))
	release, err := f.Mark(t.Context(), one.ID, id)
	gatewaytest.Must(t, err)
	release()
	for range 2 {
		gatewaytest.Must(t, f.Fork(t.Context(), one.ID, id, fork.ID))
	}
	if mail := f.list(t, fork); len(mail) > 0 {
		t.Errorf("the fork has %d messages", len(mail))
	}
	for vm, want := range map[gateway.ID]int{one.ID: 1, fork.ID: 0} {
		if ids, err := f.Marks(t.Context(), vm); err != nil || len(ids) != want {
			t.Errorf("marks %v, %v", ids, err)
		}
	}
	for range 2 {
		gatewaytest.Must(t, f.Drop(t.Context(), one.ID, id))
	}
	notFound(f.Fork(t.Context(), one.ID, id, fork.ID))
}

// Mail that a checkpoint holds back for too long is refused for now, and is in no mailbox.
func TestHeldMailIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits 5 s")
	}
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	one := f.add(t, "one")
	release, err := f.Mark(t.Context(), one.ID, gateway.CheckpointID(gateway.NewID().String()))
	gatewaytest.Must(t, err)
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	c.ask("RCPT TO:<x@one."+domain+">", "250")
	c.ask("DATA", "354")
	c.ask("Subject: x\r\n\r\nbody\r\n.", "451")
	release()
	if mail := f.list(t, one); len(mail) > 0 {
		t.Errorf("%d messages", len(mail))
	}
	if id := f.deliverTo(t, one, strings.Repeat("x", 10)); id == "" {
		t.Error("no mail comes any more")
	}
}
