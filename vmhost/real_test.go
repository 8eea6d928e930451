package vmhost_test

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/vmhost/accel"
	"lodge/vmhost/libvirt/libvirttest"
	"lodge/vmhost/sshagent"
)

var images = flag.String("images", "", "directory with the image debian-13, for the tests that boot it")

// A real guest boots, has the pinned host key, accepts the host's login key, and shuts down on
// request.
func TestRealGuest(t *testing.T) {
	needVMs(t)
	if *images == "" {
		t.Skip("needs the image debian-13: run with -images DIR")
	}
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	r.stop()
	r.config.Accel, r.config.StopTimeout = accel.Auto, 3*time.Minute
	stateImages := filepath.Join(r.config.StateDir, "images")
	if err := os.RemoveAll(stateImages); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(*images, stateImages); err != nil {
		t.Fatal(err)
	}
	r.run(t)
	serveAgent(t, r.host.Agent(), gateway.SSHAgentSocket(r.config.RunDir))
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	report := func(p gateway.Progress) {
		t.Logf("%s after %s: %s", p.Phase, p.Elapsed.Round(time.Millisecond), p.Text)
	}
	for _, direct := range []bool{true, false} {
		m, err := r.host.New(ctx, gateway.Spec{
			Name: "blog", Size: gateway.Size{Image: "debian-13", MemoryMiB: 768, DiskGiB: 4, DirectBoot: direct},
		}, report)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("direct boot %v", direct)
		if err := r.host.Wait(ctx, m.ID, report); err != nil {
			t.Fatal(err)
		}
		r.wantLogin(t, m.ID)
		begun := time.Now()
		if err := r.host.Stop(ctx, m.ID, false); err != nil {
			t.Fatal(err)
		}
		t.Logf("shut down after %s", time.Since(begun).Round(time.Millisecond))
		if err := r.host.Remove(ctx, m.ID); err != nil {
			t.Fatal(err)
		}
	}
	r.wantNothing(t)
}

// serveAgent runs the agent until the test ends.
func serveAgent(t *testing.T, agent *sshagent.Server, socket string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(agent.Shutdown(context.Background()), <-ended); err != nil {
			t.Errorf("end the agent: %v", err)
		}
	})
}

// wantLogin logs in with ssh(1) and what SSH returns.
func (r *rig) wantLogin(t *testing.T, id gateway.ID) {
	t.Helper()
	access, err := r.host.SSH(id)
	if err != nil {
		t.Fatal(err)
	}
	hosts := filepath.Join(t.TempDir(), "known_hosts")
	write(t, hosts, []byte(access.KnownHosts+"\n"))
	out, err := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", access.PublicKeyFile,
		"-o", "IdentityAgent="+access.AgentSocket, "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile="+hosts,
		"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", access.User+"@"+access.Addr, "hostname; id -un").CombinedOutput()
	if err != nil || string(out) != "blog\nlodge\n" {
		t.Errorf("ssh: %v\n%s", err, out)
	}
}
