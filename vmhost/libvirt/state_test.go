package libvirt

import (
	"testing"

	rpc "github.com/digitalocean/go-libvirt"
)

// A migrated VM, or one with a saved memory, never counts as crashed.
func TestStateOfShutoff(t *testing.T) {
	for reason, want := range map[rpc.DomainShutoffReason][2]State{ // without and with a saved memory
		rpc.DomainShutoffUnknown:   {Off, Saved}, // after a restart of libvirtd
		rpc.DomainShutoffShutdown:  {PoweredOff, Saved},
		rpc.DomainShutoffDestroyed: {Off, Saved},
		rpc.DomainShutoffCrashed:   {Off, Saved},
		rpc.DomainShutoffMigrated:  {Migrated, Migrated},
		rpc.DomainShutoffSaved:     {Off, Saved},
		rpc.DomainShutoffFailed:    {Off, Saved},
	} {
		for i, saved := range []bool{false, true} {
			if got := stateOf(rpc.DomainShutoff, int32(reason), saved); got != want[i] {
				t.Errorf("reason %d, saved %v: %s, want %s", reason, saved, got, want[i])
			}
		}
	}
}
