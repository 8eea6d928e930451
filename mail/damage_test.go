package mail

import (
	"path/filepath"
	"slices"
	"testing"
)

// A message that is damaged on the host's disk does not stop those behind it.
func TestDeliveryPassesDamage(t *testing.T) {
	g := newGuest(t)
	f, vm := withGuest(t, t.TempDir(), g)
	bad, good := f.deliverTo(t, vm, "a body to be spoiled"), f.deliverTo(t, vm, "good")
	f.spoil(t, vm, "a body to be spoiled")
	g.up(t)
	f.started(t, vm)
	f.awaitDelivery(t, vm, good)
	if f.delivered(t, vm, bad) {
		t.Error("the damaged message is listed as delivered")
	}
	if got := files(t, filepath.Join(g.home, "Maildir/new")); !slices.Equal(got, []string{good}) {
		t.Errorf("in the guest: %v, want %s", got, good)
	}
}
