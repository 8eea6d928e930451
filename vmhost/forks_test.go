package vmhost

import (
	"fmt"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/layers"
	"lodge/vmhost/libvirt"
)

// generations is how deep forks of forks go here.
const generations = 30

// Each fork of a fork has what its parent had at that moment, and the last one is whole when all before
// it are gone.
func TestForksOfForks(t *testing.T) {
	for name, started := range map[string]bool{"started": true, "never started": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 512<<20)
			do, after := w.create(t)
			gatewaytest.Must(t, do())
			want := after[0]["a"].Now.Disk
			m, _ := w.h.dir.ByName("a")
			for n := range generations {
				want[1+n%blocks] = byte(n + 1)
				w.writeBlock(t, m, 1+n%blocks, byte(n+1))
				c, err := w.h.checkpoint(t.Context(), m, libvirt.Absent, gateway.CheckpointRequest{Kind: gateway.CheckpointFork})
				gatewaytest.Must(t, err)
				next := fmt.Sprint("fork", n)
				gatewaytest.Must(t, w.forkFrom(t.Context(), m.ID, c, next))
				m, _ = w.h.dir.ByID(m.ID)
				w.writeBlock(t, m, 1+n%blocks, 255) // the fork has nothing of this
				m, _ = w.h.dir.ByName(next)
				if started {
					w.h.flattenDeep(t.Context(), m.ID)
					m, _ = w.h.dir.ByID(m.ID)
				}
				limit := n + 3 // the image's, the fork's, and one of each parent
				if started {
					limit = min(limit, layers.FlattenAt-1)
				}
				chain, err := w.h.layers.Chain(m.Disk)
				if got := w.content(t, m.Disk); err != nil || got != want || len(chain) > limit {
					t.Fatalf("fork %d reads %v, want %v, from %d layers; %v", n, got, want, len(chain), err)
				}
			}
			for _, old := range w.h.dir.All() {
				if old.ID != m.ID {
					gatewaytest.Must(t, w.h.removeData(t.Context(), old.ID))
				}
			}
			w.open(t)
			w.checkRests(t)
			if got := w.content(t, m.Disk); got != want {
				t.Errorf("alone it reads %v, want %v", got, want)
			}
			gatewaytest.Must(t, w.h.removeData(t.Context(), m.ID))
			w.checkRests(t)
		})
	}
}

// A disk never has more layers than libvirt takes, even where no start has the room to make it one.
func TestForksHaveALimit(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 126 checkpoints")
	}
	w := newWorld(t, 512<<20)
	do, _ := w.create(t)
	gatewaytest.Must(t, do())
	fork := func(name string) error {
		parent := w.h.dir.All()[0]
		c, err := w.h.checkpoint(t.Context(), parent, libvirt.Absent, gateway.CheckpointRequest{Kind: gateway.CheckpointFork})
		if err == nil {
			err = w.forkFrom(t.Context(), parent.ID, c, name)
		}
		if err == nil {
			err = w.h.removeData(t.Context(), parent.ID)
		}
		return err
	}
	m := w.h.dir.All()[0]
	for layers := 2; layers < maxChain; layers++ {
		_, err := w.h.checkpoint(t.Context(), m, libvirt.Absent, gateway.CheckpointRequest{})
		gatewaytest.Must(t, err)
		m, _ = w.h.dir.ByID(m.ID)
	}
	if err := fork("one"); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a fork of a disk with %d layers: %v", maxChain, err)
	}
	newest, err := w.h.forkPoint(t.Context(), m.ID, w.h.checkpoints.Of(m.ID)[maxChain-3].Name)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, w.forkFrom(t.Context(), m.ID, newest, "two"))
	gatewaytest.Must(t, w.h.removeData(t.Context(), m.ID))
	if chain, err := w.h.layers.Chain(w.h.dir.All()[0].Disk); err != nil || len(chain) != maxChain {
		t.Errorf("a fork of the newest checkpoint: %d layers, %v", len(chain), err)
	}
	if err := fork("three"); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a fork of that: %v", err)
	}
	w.h.flattenDeep(t.Context(), w.h.dir.All()[0].ID) // as a start does
	gatewaytest.Must(t, fork("four"))
	w.open(t)
	w.checkRests(t)
}
