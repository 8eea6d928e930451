package vmhost_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt/libvirttest"
)

// A rollback to a checkpoint with memory goes on from there, again and again, also after the VM was
// restarted; one whose file is damaged boots.
func TestCheckpointOfMemory(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	r.stop()
	r.config.StopTimeout = 2 * time.Second
	r.run(t)
	m := r.make(t, "blog")
	before := pid(t, m.ID)
	r.press(t, m.ID, libvirttest.KeyDeaf) // this is in memory alone
	c, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "awake", Memory: true})
	gatewaytest.Must(t, err)
	if c.Memory == "" || pid(t, m.ID) != before {
		t.Errorf("%+v, or the VM was restarted", c)
	}
	r.wantState(t, m.ID, "running")
	if _, bytes := r.host.Checkpoints(m.ID); bytes[0] < 1<<20 {
		t.Errorf("the checkpoint takes %d bytes", bytes)
	}
	incarnation := r.machine(t, m.ID).Incarnation
	for range 2 {
		_, err = r.host.Rollback(t.Context(), m.ID, "awake", false)
		gatewaytest.Must(t, err)
		r.wantState(t, m.ID, "running")
		r.wantEcho(t, m.ID, libvirttest.KeyWrite)
	}
	if got := r.machine(t, m.ID).Incarnation; got != incarnation {
		t.Errorf("the guest's programs lost their credentials: incarnation %d, was %d", got, incarnation)
	}
	if err := r.host.Stop(t.Context(), m.ID, false); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("the guest had ignored the power button, but now: %v", err)
	}
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 1) // it was never off

	gatewaytest.Must(t, r.host.Stop(t.Context(), m.ID, true))
	if _, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "off", Memory: true}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("memory of a VM that is off: %v", err)
	}
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 2)
	_, err = r.host.Rollback(t.Context(), m.ID, "awake", false)
	gatewaytest.Must(t, err)
	r.wantEcho(t, m.ID, libvirttest.KeyWrite)
	r.waitGreetings(t, m.ID, 2)

	file := filepath.Join(r.config.StateDir, "memory", string(c.ID))
	gatewaytest.Must(t, os.WriteFile(file, []byte("damaged"), 0o600))
	_, err = r.host.Rollback(t.Context(), m.ID, "awake", false)
	gatewaytest.Must(t, err)
	r.waitGreetings(t, m.ID, 3)

	gatewaytest.Must(t, os.WriteFile(filepath.Join(filepath.Dir(file), "left"), []byte("of a crash"), 0o600))
	r.restart(t)
	gatewaytest.WaitFor(t, "the rest of a crash is gone", func() bool {
		left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
		return err == nil && len(left) == 1
	})
	gatewaytest.Must(t, r.host.RemoveCheckpoint(t.Context(), m.ID, c.ID))
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the memory of a removed checkpoint: %v", err)
	}
	_, err = r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "again", Memory: true})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
	r.wantNothing(t)
}
