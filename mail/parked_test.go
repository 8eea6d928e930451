package mail

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// makeDir makes a directory of the guest's user.
func (g *guest) makeDir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(append([]string{g.home}, path...)...)
	gatewaytest.Must(t, os.Mkdir(dir, 0o700))
	gatewaytest.Must(t, os.Chown(dir, guestUID, guestUID))
	return dir
}

func (g *guest) makeMaildir(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"", "tmp", "new", "cur"} {
		g.makeDir(t, "Maildir", dir)
	}
}

// show returns one message of the list.
func (f *fixture) show(t *testing.T, vm gateway.Identity, queueID string) gateway.Message {
	t.Helper()
	for _, m := range f.list(t, vm) {
		if m.QueueID == queueID {
			return m
		}
	}
	t.Fatalf("%s is not listed", queueID)
	return gateway.Message{}
}

// Messages that the guest cannot take, more than are in flight, stop no other one. They wait, with the
// reason in the list, over a restart of the daemon too, and come once they can.
func TestParkedMessages(t *testing.T) {
	g := newGuest(t)
	g.makeMaildir(t)
	dir := t.TempDir()
	f, vm := withGuest(t, dir, g)
	var bad, good []string
	for i := range 10 {
		bad = append(bad, f.deliverTo(t, vm, fmt.Sprint("bad ", i)))
		g.makeDir(t, "Maildir", "tmp", bad[i]) // where the file would be
	}
	for i := range 3 {
		good = append(good, f.deliverTo(t, vm, fmt.Sprint("good ", i)))
	}
	gatewaytest.WaitFor(t, "the reason", func() bool { return strings.Contains(f.show(t, vm, good[0]).Error, "connection refused") })
	g.up(t)
	f.started(t, vm)
	for _, id := range good {
		f.awaitDelivery(t, vm, id)
	}
	after := f.deliverTo(t, vm, "later")
	f.awaitDelivery(t, vm, after)
	for _, id := range bad {
		if m := f.show(t, vm, id); m.Delivered || !strings.Contains(m.Error, "Maildir/tmp/"+id) {
			t.Errorf("%+v", m)
		}
	}
	want := append(slices.Clone(good), after)
	slices.Sort(want)
	if got := files(t, filepath.Join(g.home, "Maildir/new")); !slices.Equal(got, want) {
		t.Errorf("in the guest: %v, want %v", got, want)
	}
	gatewaytest.Must(t, f.Shutdown(t.Context()))
	f = start(t, dir, func(c *Config) { c.SSHKeyFile, c.Dial = g.keyFile, g.dialVM })
	vm = f.addAs(t, "hello", vm.ID, g.hostKey)
	gatewaytest.WaitFor(t, "the reason is known again", func() bool { return strings.Contains(f.show(t, vm, bad[9]).Error, bad[9]) })
	for _, id := range bad {
		gatewaytest.Must(t, os.Remove(filepath.Join(g.home, "Maildir/tmp", id)))
	}
	f.started(t, vm)
	for _, id := range bad {
		f.awaitDelivery(t, vm, id)
		if m := f.show(t, vm, id); m.Error != "" {
			t.Errorf("delivered, and %+v", m)
		}
	}
	if got := files(t, filepath.Join(g.home, "Maildir/new")); len(got) != len(bad)+len(want) {
		t.Errorf("in the guest: %v", got)
	}
	leftNothing(t, filepath.Join(g.home, "Maildir/tmp"))
}

// Removing a parked message ends its attempts.
func TestParkedIsRemoved(t *testing.T) {
	g := newGuest(t)
	g.makeMaildir(t)
	f, vm := withGuest(t, t.TempDir(), g)
	bad, good := f.deliverTo(t, vm, "bad"), f.deliverTo(t, vm, "good")
	g.makeDir(t, "Maildir", "tmp", bad)
	g.up(t)
	f.started(t, vm)
	f.awaitDelivery(t, vm, good)
	box, err := f.store.Box(vm.ID)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, box.Expunge([]uint32{1}))
	f.started(t, vm)
	last := f.deliverTo(t, vm, "last")
	f.awaitDelivery(t, vm, last)
	if n := f.log.Count("message parked"); n != 1 {
		t.Errorf("%d messages were parked", n)
	}
}
