package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/e2e/harness"
	"lodge/gateway/api"
)

// rebooted waits until a guest's boot id has changed.
func rebooted(t *testing.T, vm *harness.VM, before string) {
	t.Helper()
	harness.Eventually(t, vm.Name+" has rebooted", 10*time.Minute, func() error {
		vm.Disconnect() // from the boot before
		r := vm.Try(t, "cat /proc/sys/kernel/random/boot_id")
		if now := strings.TrimSpace(r.Stdout); r.Code != 0 || now == "" || now == before {
			return fmt.Errorf("boot id is %q: %s", now, r.Stderr)
		}
		return nil
	})
}

// reboot: a VM that was resumed reboots from inside. It keeps the identity that it was given, its
// files, its cron job, and its SQLite database, which was in use.
func (s *suite) reboot(t *testing.T) {
	vm := s.fresh(t, "rebooted", "--user-data", "../docs/examples/hello/user-data.yaml")
	ids := "cat /etc/machine-id /etc/lodge/ssh_host_ed25519_key.pub /sys/class/net/eth0/address; hostname; ip -o -4 addr show dev eth0 | grep -o 'inet [^ ]*'"
	given := vm.Run(t, ids)
	vm.PutFile(t, "/home/lodge/writer.py", "testdata/writer.py", "644")
	vm.Run(t, `
		echo kept >~/kept; sync
		echo '* * * * * cat /proc/sys/kernel/random/boot_id >>$HOME/cron.log' | crontab -
		sudo tee /etc/systemd/system/writer.service >/dev/null <<'END'
[Service]
User=lodge
ExecStart=python3 /home/lodge/writer.py
[Install]
WantedBy=multi-user.target
END
		sudo systemctl daemon-reload
		sudo systemctl enable --quiet --now writer.service
		until [ "$(wc -l <~/committed 2>/dev/null || echo 0)" -ge 50 ]; do sleep 0.2; done`)
	before := vm.BootID(t)
	vm.Try(t, "sudo systemctl reboot")
	rebooted(t, vm, before)
	now := vm.BootID(t)
	got := vm.Run(t, `cat ~/kept
		tail -n 1 ~/committed
		sqlite3 -cmd '.timeout 10000' ~/data.db 'PRAGMA integrity_check' "SELECT count(*), max(id) FROM rows WHERE boot = '`+before+`'"`)
	lines := strings.Split(got, "\n")
	if len(lines) != 4 || lines[0] != "kept" || lines[2] != "ok" {
		t.Fatalf("after the reboot:\n%s", got)
	}
	count, last, _ := strings.Cut(lines[3], "|")
	if count != last {
		t.Errorf("of %s rows before the reboot %s are there", last, count)
	}
	if rows, err := strconv.Atoi(count); err != nil || rows < 50 {
		t.Errorf("rows before the reboot: %q, want at least the 50 that were committed", count)
	}
	lost := vm.Run(t, `sudo systemctl stop writer
		sqlite3 ~/data.db 'SELECT id FROM rows' | sort >/tmp/rows; sort ~/committed | comm -23 - /tmp/rows | wc -l`)
	if lost != "0" {
		t.Errorf("%s rows that were committed are lost", lost)
	}
	harness.Eventually(t, "cron goes on", 3*time.Minute, func() error {
		if log := vm.Run(t, "cat ~/cron.log 2>/dev/null || true"); !strings.Contains(log, now) {
			return fmt.Errorf("cron wrote %q", log)
		}
		return nil
	})
	if state := vm.Info(t).State; state != "running" {
		t.Errorf("the VM is %s after its reboot", state)
	}
	if now := vm.Run(t, ids); now != given {
		t.Errorf("the VM has changed by its reboot:\n%s", cmp.Diff(given, now))
	}
	s.h.Lodge(t, "wait", vm.Name, "--for", "http")
}

// stopAndStart: the URL of a stopped VM shows that it is stopped; its mail arrives when it starts;
// its old credentials are void.
func (s *suite) stopAndStart(t *testing.T) {
	vm := s.fresh(t, "stopped")
	vm.Run(t, s3Script+"echo kept >/tmp/kept; signed -f -T /tmp/kept $base/kept/kept")
	before := vm.BootID(t)
	old := vm.Run(t, credentialsScript)
	// From now on the last unit of the boot is at work, which must not hold up the end.
	vm.Run(t, `until [ "$(systemctl show --property=ActiveState --value lodge-late.service)" != inactive ]; do sleep 0.1; done`)
	vm.Stop(t)
	if state := vm.Info(t).State; state != "stopped" {
		t.Errorf("%s is %s after stop", vm.Name, state)
	}
	s.h.Lodge(t, "share", vm.Name, "9000", "public")
	status, body := get(t, s.client(), "https://9000-"+vm.Name+"."+s.h.Domain+"/")
	if status != 502 && status != 503 {
		t.Errorf("the page of a stopped VM: %d", status)
	}
	contains(t, "the page of a stopped VM", body, "stopped")
	s.send(t, "person@example.org", "x@"+vm.Name+"."+s.h.Domain, "while it is off")
	if r := s.h.TryLodge(t, "ssh", vm.Name, "true"); r.Code == 0 || !strings.Contains(r.Stderr, "lodge start "+vm.Name) {
		t.Errorf("lodge ssh to a stopped VM: %d %s", r.Code, r.Text())
	}
	s.h.Lodge(t, "start", vm.Name)
	s.h.Lodge(t, "wait", vm.Name)
	rebooted(t, vm, before)
	s.delivered(t, vm, "while it is off", 2*time.Minute)
	contains(t, "credentials from before the stop", useKeys(t, vm, old), " 403")
	contains(t, "the files after stop and start", useKeys(t, vm, vm.Run(t, credentialsScript)), "<Name>", " 200")
}

// removed: a VM that was removed leaves nothing, and a new one with its name sees nothing of it.
func (s *suite) removed(t *testing.T) {
	const name = "removed"
	vm := s.fresh(t, name)
	s.send(t, "person@example.org", "x@"+name+"."+s.h.Domain, "of the old")
	s.h.Lodge(t, "share", name, "9000", "public")
	vm.Run(t, s3Script+"echo of the old >/tmp/x; signed -f -T /tmp/x $base/old/x")
	old := vm.Identity(t)
	vm.Disconnect()
	s.h.Lodge(t, "rm", "--yes", name)
	id := old.ID.String()
	// Its UUID alone is kept for a while, so that a definition which libvirtd makes late is removed.
	r := s.h.Run(t, nil, "bash", "-c", `ip -o link show; ip route; nft list ruleset; virsh -q -c qemu:///system list --all --name; find "$0" -not -path "*/removed/*"`, s.h.Dir)
	lacks(t, "after lodge rm", r.Stdout, old.Tap(), old.Addr.String()+" ", old.MAC().String(), id)
	if r := s.trySend(t, "person@example.org", "x@"+name+"."+s.h.Domain); !strings.Contains(r.Text(), "<** 550") {
		t.Errorf("mail to a removed VM: %s", r.Text())
	}
	s.h.Lodge(t, "new", name, "--wait")
	now := vm.Identity(t)
	if now.ID == old.ID || now.Number == old.Number || now.Addr == old.Addr || now.MAC().String() == old.MAC().String() {
		t.Errorf("the new VM has something of the old: %+v, %+v", now, old)
	}
	if mail := s.h.Lodge(t, "--json", "mail", name); strings.TrimSpace(mail) != "[]" {
		t.Errorf("the new VM has mail: %s", mail)
	}
	if list := useKeys(t, vm, "any:key"); strings.Contains(list, "<Name>") || !strings.HasSuffix(list, " 200") {
		t.Errorf("the new VM has buckets: %s", list)
	}
	if status, _ := get(t, s.client(), "https://9000-"+name+"."+s.h.Domain+"/"); status != 401 {
		t.Errorf("the new VM has the shares of the old: port 9000 gives %d", status)
	}
	named := 0
	for _, vm := range harness.JSON[[]api.VM](t, s.h, "ls") {
		if vm.Name == name {
			named++
		}
	}
	if named != 1 {
		t.Errorf("lodge ls has %d VMs of that name", named)
	}
	s.h.Lodge(t, "rm", "--yes", name)
	if r := s.h.TryLodge(t, "show", name); r.Code == 0 {
		t.Error(errors.New("the VM is still there after lodge rm"))
	}
}
