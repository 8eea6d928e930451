package seed_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// The part of setup.sh that is for forks, over a directory in place of /: nothing that identifies the
// other VM stays. In a VM that is set up for the first time, or again, nothing of it happens.
func TestForkGetsItsOwnIDs(t *testing.T) {
	setup := readISO(t, write(t, guest()), joliet)["setup.sh"]
	_, part, ok := strings.Cut(setup, "# A fork has the disk of another VM")
	part, _, end := strings.Cut(part, "\nfi\n")
	if !ok || !end {
		t.Fatal("setup.sh has no part for forks")
	}
	for last, fork := range map[string]bool{"": false, "0a1b": true} {
		root := t.TempDir()
		for path, text := range map[string]string{
			"etc/machine-id": "old\n", "var/lib/dbus/machine-id": "old\n", "var/lib/systemd/random-seed": "old",
			"etc/ssh/ssh_host_rsa_key": "old", "etc/ssh/sshd_config": "kept",
		} {
			gatewaytest.Must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755))
			gatewaytest.Must(t, os.WriteFile(filepath.Join(root, path), []byte(text), 0o600))
		}
		script := strings.NewReplacer(" /etc/", " "+root+"/etc/", ">/etc/", ">"+root+"/etc/", " /var/", " "+root+"/var/").Replace("#" + part + "\nfi\n")
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", "umount() { :; }; systemctl() { :; }; last=\""+last+"\"\n"+script)
		cmd.Env = append(os.Environ(), "INSTANCE_ID=7f8e0000-0000-4000-8000-000000000001")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		id, err := os.ReadFile(filepath.Join(root, "etc/machine-id"))
		gatewaytest.Must(t, err)
		if want := map[bool]string{true: "7f8e0000000040008000000000000001\n", false: "old\n"}[fork]; string(id) != want {
			t.Errorf("fork %v: the machine id is %q", fork, id)
		}
		if target, err := os.Readlink(filepath.Join(root, "var/lib/dbus/machine-id")); fork && (err != nil || target != root+"/etc/machine-id") {
			t.Errorf("dbus has %q, %v", target, err)
		}
		for path, stays := range map[string]bool{"var/lib/systemd/random-seed": !fork, "etc/ssh/ssh_host_rsa_key": !fork, "etc/ssh/sshd_config": true} {
			if _, err := os.Stat(filepath.Join(root, path)); (err == nil) != stays {
				t.Errorf("fork %v: %s: %v", fork, path, err)
			}
		}
	}
}
