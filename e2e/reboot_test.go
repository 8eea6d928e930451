package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway/api"
)

// rebooted waits until a guest's boot id has changed.
func rebooted(t *testing.T, vm *harness.VM, before string) {
	t.Helper()
	harness.Eventually(t, vm.Name+" has rebooted", 5*time.Minute, func() error {
		r := vm.Try(t, "cat /proc/sys/kernel/random/boot_id")
		if now := strings.TrimSpace(r.Stdout); r.Code != 0 || now == "" || now == before {
			return fmt.Errorf("boot id is %q: %s", now, r.Stderr)
		}
		return nil
	})
}

// reboot: alpha reboots from inside and keeps its files, its cron job, and its SQLite database,
// which was in use.
func (s *suite) reboot(t *testing.T) {
	s.alpha.PutFile(t, "/home/lodge/writer.py", "testdata/writer.py", "644")
	s.alpha.Run(t, `
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
	before := s.alpha.BootID(t)
	s.alpha.Try(t, "sudo systemctl reboot")
	rebooted(t, s.alpha, before)
	now := s.alpha.BootID(t)
	got := s.alpha.Run(t, `cat ~/kept
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
	lost := s.alpha.Run(t, `sudo systemctl stop writer
		sqlite3 ~/data.db 'SELECT id FROM rows' | sort >/tmp/rows; sort ~/committed | comm -23 - /tmp/rows | wc -l`)
	if lost != "0" {
		t.Errorf("%s rows that were committed are lost", lost)
	}
	harness.Eventually(t, "cron goes on", 3*time.Minute, func() error {
		if log := s.alpha.Run(t, "cat ~/cron.log 2>/dev/null || true"); !strings.Contains(log, now) {
			return fmt.Errorf("cron wrote %q", log)
		}
		return nil
	})
	if state := s.alpha.Info(t).State; state != "running" {
		t.Errorf("alpha is %s after its reboot", state)
	}
	s.h.Lodge(t, "wait", "alpha", "--for", "http")
}

// stopAndStart: the URL of a stopped VM shows that it is stopped; its mail arrives when it starts;
// its old credentials are void.
func (s *suite) stopAndStart(t *testing.T) {
	before := s.beta.BootID(t)
	old := s.beta.Run(t, credentialsScript)
	s.h.Lodge(t, "stop", "beta")
	if state := s.beta.Info(t).State; state != "stopped" {
		t.Errorf("beta is %s after stop", state)
	}
	s.h.Lodge(t, "share", "beta", "9000", "public")
	status, body := get(t, s.client(), "https://9000-beta."+s.h.Domain+"/")
	if status != 502 && status != 503 {
		t.Errorf("the page of a stopped VM: %d", status)
	}
	contains(t, "the page of a stopped VM", body, "stopped")
	s.send(t, "person@example.org", "x@beta."+s.h.Domain, "while beta is off")
	if r := s.h.TryLodge(t, "ssh", "beta", "true"); r.Code == 0 || !strings.Contains(r.Stderr, "lodge start beta") {
		t.Errorf("lodge ssh to a stopped VM: %d %s", r.Code, r.Text())
	}
	s.h.Lodge(t, "start", "beta")
	s.h.Lodge(t, "wait", "beta")
	rebooted(t, s.beta, before)
	s.delivered(t, s.beta, "while beta is off", 2*time.Minute)
	contains(t, "credentials from before the stop", useKeys(t, s.beta, old), " 403")
	contains(t, "beta's files after stop and start", useKeys(t, s.beta, s.beta.Run(t, credentialsScript)), "<Name>", " 200")
}

// removed: a VM that was removed leaves nothing, and a new one with its name sees nothing of it.
func (s *suite) removed(t *testing.T) {
	old := s.beta.Identity(t)
	s.h.Lodge(t, "rm", "--yes", "beta")
	id := old.ID.String()
	// Its UUID alone is kept for a while, so that a definition which libvirtd makes late is removed.
	r := s.h.Run(t, nil, "bash", "-c", `ip -o link show; ip route; nft list ruleset; virsh -q -c qemu:///system list --all --name; find "$0" -not -path "*/removed/*"`, s.h.Dir)
	lacks(t, "after lodge rm", r.Stdout, old.Tap(), old.Addr.String()+" ", old.MAC().String(), id)
	if r := s.trySend(t, "person@example.org", "x@beta."+s.h.Domain); !strings.Contains(r.Text(), "<** 550") {
		t.Errorf("mail to a removed VM: %s", r.Text())
	}
	s.h.Lodge(t, "new", "beta", "--direct-boot", "--wait")
	now := s.beta.Identity(t)
	if now.ID == old.ID || now.Number == old.Number || now.Addr == old.Addr || now.MAC().String() == old.MAC().String() {
		t.Errorf("the new beta has something of the old: %+v, %+v", now, old)
	}
	if mail := s.h.Lodge(t, "--json", "mail", "beta"); strings.TrimSpace(mail) != "[]" {
		t.Errorf("the new beta has mail: %s", mail)
	}
	if list := useKeys(t, s.beta, "any:key"); strings.Contains(list, "<Name>") || !strings.HasSuffix(list, " 200") {
		t.Errorf("the new beta has buckets: %s", list)
	}
	if status, _ := get(t, s.client(), "https://9000-beta."+s.h.Domain+"/"); status != 401 {
		t.Errorf("the new beta has the shares of the old: port 9000 gives %d", status)
	}
	all := harness.JSON[[]api.VM](t, s.h, "ls")
	if len(all) != 2 {
		t.Errorf("lodge ls has %d VMs, want 2", len(all))
	}
	s.h.Lodge(t, "rm", "--yes", "beta")
	if r := s.h.TryLodge(t, "show", "beta"); r.Code == 0 {
		t.Error(errors.New("beta is still there after lodge rm"))
	}
}
