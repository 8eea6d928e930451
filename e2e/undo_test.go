package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/api"
)

// ids are what no two VMs may share, a line each.
const ids = `cat /etc/machine-id /etc/lodge/ssh_host_ed25519_key.pub /sys/class/net/e*/address; cat /var/lib/dbus/machine-id; hostname
sudo sha256sum /var/lib/systemd/random-seed 2>/dev/null || echo none; cat /proc/sys/kernel/random/boot_id
printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c "echo %%m >/run/machine"\n' | sudo tee /run/systemd/system/machine.service >/dev/null
sudo systemctl daemon-reload; sudo systemctl start machine; cat /run/machine`

// undo: a running VM is recorded, changed and rolled back, the rollback is undone, and a fork of it is a
// VM of its own while it runs on.
func (s *suite) undo(t *testing.T) {
	vm := s.fresh(t, "undo")
	vm.Run(t, "echo first >note; sync; sudo systemctl is-system-running --wait")
	begun := time.Now()
	s.h.Lodge(t, "checkpoint", "undo", "one")
	t.Logf("a checkpoint of a running VM took %s", time.Since(begun).Round(time.Millisecond))
	vm.Run(t, "echo second >note; echo more >more; sync")
	s.h.Lodge(t, "checkpoint", "undo", "frozen", "--quiesce")
	if got := harness.JSON[[]api.Checkpoint](t, s.h, "checkpoints", "undo"); len(got) != 2 || got[0].Quiesced || !got[1].Quiesced || got[0].Bytes == 0 {
		t.Errorf("checkpoints: %+v", got)
	}
	boot := vm.BootID(t)
	s.wrongAgents(t, vm)
	s.seen(t)

	s.forked(t, vm)

	if now := vm.BootID(t); now != boot {
		t.Error("checkpoints or a fork have restarted the VM")
	}
	s.h.Lodge(t, "rollback", "--yes", "undo", "one")
	s.h.Lodge(t, "wait", "undo")
	if got := vm.Run(t, "cat note; ls more 2>&1 || true"); !strings.HasPrefix(got, "first\n") || !strings.Contains(got, "No such file") {
		t.Errorf("after the rollback: %s", got)
	}
	if state := vm.Run(t, "sudo systemctl is-system-running --wait"); state != "running" || vm.BootID(t) == boot {
		t.Errorf("after the rollback the VM is %s", state)
	}
	var back string
	for _, c := range harness.JSON[[]api.Checkpoint](t, s.h, "checkpoints", "undo") {
		if c.Kind == "undo" {
			back = c.Name
		}
	}
	s.undoInside(t, vm, back)
	s.goesOn(t, vm)
}

// goesOn: a program runs on from a checkpoint with memory, with what it had then.
func (s *suite) goesOn(t *testing.T, vm *harness.VM) {
	t.Helper()
	vm.Run(t, `sudo systemctl is-system-running --wait; mkdir -p count; cat >count/run <<'END'
n=0
while :; do n=$((n+1)); echo $n >/dev/shm/count; sleep 0.1; done
END
setsid nohup sh count/run >/dev/null 2>&1 </dev/null & echo`)
	harness.Eventually(t, "the program counts", time.Minute, func() error {
		if r := vm.Try(t, "cat /dev/shm/count"); r.Code != 0 {
			return errors.New(r.Text())
		}
		return nil
	})
	boot := vm.BootID(t)
	begun := time.Now()
	s.h.Lodge(t, "checkpoint", "undo", "awake", "--memory")
	t.Logf("a checkpoint with memory took %s", time.Since(begun).Round(time.Millisecond))
	vm.Run(t, "pkill -f count/run; rm /dev/shm/count; sudo systemctl reboot")
	s.h.Lodge(t, "wait", "undo")
	begun = time.Now()
	s.h.Lodge(t, "rollback", "--yes", "undo", "awake")
	s.h.Lodge(t, "wait", "undo")
	t.Logf("the rollback to it took %s", time.Since(begun).Round(time.Millisecond))
	if now := vm.BootID(t); now != boot {
		t.Error("the VM has booted")
	}
	vm.Run(t, "a=$(cat /dev/shm/count); sleep 1; b=$(cat /dev/shm/count); test $b -gt $a")
	harness.Eventually(t, "the clock is right", time.Minute, func() error {
		host := time.Now().Unix()
		guest, err := strconv.ParseInt(strings.TrimSpace(vm.Run(t, "date +%s")), 10, 64)
		if err != nil || guest < host-5 || guest > host+5 {
			return fmt.Errorf("%d at %d, %w", guest, host, err)
		}
		return nil
	})
}

// seen: what was changed from checkpoint to checkpoint, while the VM runs on.
func (s *suite) seen(t *testing.T) {
	t.Helper()
	begun := time.Now()
	changes := s.h.Lodge(t, "diff", "undo", "one", "frozen", "--text")
	t.Logf("a diff of two checkpoints took %s", time.Since(begun).Round(time.Millisecond))
	contains(t, "from one checkpoint to another", changes, "/home/lodge/note", "/home/lodge/more", "-first", "+second", "+more")
	contains(t, "from a checkpoint to now", s.h.Lodge(t, "diff", "undo", "one"), "/home/lodge/note")
	begun = time.Now()
	steps := harness.JSON[[]gateway.HistoryStep](t, s.h, "history", "undo", "--last", "2")
	t.Logf("the history took %s", time.Since(begun).Round(time.Millisecond))
	if len(steps) != 2 || steps[0].From != "one" || steps[0].To != "frozen" || steps[1].To != "" {
		t.Fatalf("history: %+v", steps)
	}
	for _, path := range []string{"/home/lodge/note", "/home/lodge/more"} {
		if !slices.ContainsFunc(steps[0].Changes.Files, func(f gateway.FileChange) bool { return f.Path == path }) {
			t.Errorf("the history has no %s: %+v", path, steps[0].Changes)
		}
	}
	if len(steps[1].Changes.Files) > 0 {
		t.Errorf("nothing has changed since: %+v", steps[1].Changes.Files)
	}
}

// undoInside: the VM undoes the rollback itself, once its owner allows that.
func (s *suite) undoInside(t *testing.T, vm *harness.VM, back string) {
	t.Helper()
	const checkpoints = "http://169.254.169.254/lodge/v1/checkpoints"
	ask := func(args string) string {
		return vm.Run(t, "curl -s -w ' %{http_code}' -H 'Lodge-Request: 1' "+args)
	}
	contains(t, "a checkpoint from inside", ask(`--json '{"name": "own"}' `+checkpoints), `"kind":"inside"`, "201")
	contains(t, "the list from inside", ask(checkpoints), `"one"`, `"own"`, "200")
	contains(t, "a rollback without leave", ask("-X POST "+checkpoints+"/"+back+"/rollback"), "lodge set", "403")
	s.h.Lodge(t, "set", "undo", "--rollback-inside")
	boot := vm.BootID(t)
	vm.Try(t, "curl -s -X POST -H 'Lodge-Request: 1' "+checkpoints+"/"+back+"/rollback") // the VM ends
	harness.Eventually(t, "the VM has booted", 5*time.Minute, func() error {
		r := vm.Try(t, "cat note more; cat /proc/sys/kernel/random/boot_id")
		if r.Code != 0 || strings.Contains(r.Stdout, boot) || !strings.HasPrefix(r.Stdout, "second\nmore\n") {
			return errors.New(r.Text())
		}
		return nil
	})
}

// forked: a fork of a running VM has its files and nothing of its identity.
func (s *suite) forked(t *testing.T, vm *harness.VM) {
	t.Helper()
	vm.Run(t, "echo forked >page; nohup python3 -m http.server 8000 >/dev/null 2>&1 </dev/null & sync")
	s.h.Lodge(t, "fork", "undo", "twin", "--wait")
	twin := s.h.VM("twin")
	t.Cleanup(twin.Remove)
	t.Cleanup(func() { twin.KeepConsole(t) })
	if got := twin.Run(t, "cat note page"); got != "second\nforked" {
		t.Errorf("the files of the fork: %s", got)
	}
	own, others := strings.Split(twin.Run(t, ids), "\n"), strings.Split(vm.Run(t, ids), "\n")
	for i, value := range own {
		if i < len(others) && value == others[i] && value != "none" {
			t.Errorf("both VMs have %q", value)
		}
	}
	if want := strings.ReplaceAll(twin.Info(t).ID.String(), "-", ""); own[0] != want {
		t.Errorf("the machine id of the fork is %s, not %s", own[0], want)
	}
	twin.Run(t, "test -d /run/log/journal/$(cat /etc/machine-id) -o -d /var/log/journal/$(cat /etc/machine-id)")
	contains(t, "the environment of units", twin.Run(t, "systemctl show-environment"), "AWS_ENDPOINT_URL_S3=")
	twin.Run(t, "nohup python3 -m http.server 8000 >/dev/null 2>&1 </dev/null & for i in $(seq 50); do curl -sf http://127.0.0.1:8000/page && break; sleep 0.2; done")
	s.h.Lodge(t, "share", "twin", "public")
	if status, body := get(t, s.client(), "https://twin.lodge.localhost/page"); status != 200 || body != "forked\n" {
		t.Errorf("the page of the fork: %d %s", status, body)
	}
	s.h.Lodge(t, "rm", "--yes", "twin")
}
