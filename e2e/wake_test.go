package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"lodge/e2e/harness"
)

// wakeOnRequest: a stopped VM stays stopped for its visitors until its owner sets it to be woken.
// Then many requests start it once, and all are answered by its page.
func (s *suite) wakeOnRequest(t *testing.T) {
	vm := s.fresh(t, "sleeper")
	vm.Run(t, `mkdir -p ~/page && echo "sleeper is awake" >~/page/index.html
		sudo tee /etc/systemd/system/page.service >/dev/null <<'END'
[Service]
User=lodge
ExecStartPre=sh -c 'echo started >>/home/lodge/starts'
ExecStart=python3 -m http.server --directory /home/lodge/page 9000
[Install]
WantedBy=multi-user.target
END
		sudo systemctl daemon-reload
		sudo systemctl enable --quiet --now page.service
		until curl -s -o /dev/null http://127.0.0.1:9000/; do sleep 0.2; done`)
	page := "https://9000-" + vm.Name + "." + s.h.Domain + "/"
	s.h.Lodge(t, "share", vm.Name, "9000", "public")
	vm.Stop(t)
	s.asleep(t, vm, page, http.StatusServiceUnavailable)
	s.h.Lodge(t, "set", vm.Name, "--wake-on-request")
	s.asleep(t, vm, vm.Info(t).URL+"/", http.StatusUnauthorized) // a private page
	t.Run("requests", func(t *testing.T) {
		for i := range 20 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				s.awaited(t, page)
			})
		}
	})
	s.h.Lodge(t, "wait", vm.Name)
	if got := vm.Run(t, "cat ~/starts"); got != "started\nstarted" {
		t.Errorf("the starts of the service: %q", got)
	}
	s.h.Lodge(t, "set", vm.Name, "--no-wake-on-request")
	vm.Stop(t)
	s.asleep(t, vm, page, http.StatusServiceUnavailable)
	s.wokenByMail(t, vm)
}

// wokenByMail: mail that waits does not start a stopped VM, new mail does, and all of it is delivered.
func (s *suite) wokenByMail(t *testing.T, vm *harness.VM) {
	t.Helper()
	to := "x@" + vm.Name + "." + s.h.Domain
	s.send(t, "a@example.org", to, "waits")
	s.h.Lodge(t, "mail", "set", vm.Name, "--wake", "on", "--allow", "@example.org")
	if r := s.trySend(t, "eve@evil.example", to); r.Code == 0 {
		t.Errorf("a sender who is not allowed: %s", r.Text())
	}
	if state := vm.Info(t).State; state != "stopped" {
		t.Errorf("the VM is %s before there is new mail", state)
	}
	s.send(t, "a@example.org", to, "wakes")
	s.delivered(t, vm, "wakes", 8*time.Minute)
	s.delivered(t, vm, "waits", time.Minute)
	s.h.Lodge(t, "mail", "set", vm.Name, "--wake", "off", "--allow", "anyone")
}

// asleep requests a page that does not wake its VM.
func (s *suite) asleep(t *testing.T, vm *harness.VM, page string, want int) {
	t.Helper()
	status, body := get(t, s.client(), page)
	if state := vm.Info(t).State; status != want || state != "stopped" {
		t.Errorf("%s: %d, and the VM is %s; want %d\n%s", page, status, state, want, body)
	}
}

// awaited requests a page as a browser does: while the VM starts, the page of the gateway reloads.
func (s *suite) awaited(t *testing.T, page string) {
	t.Helper()
	client := s.client()
	client.Timeout = 2 * time.Minute
	harness.Eventually(t, "the VM was woken", 8*time.Minute, func() error {
		status, body := get(t, client, page)
		if status == http.StatusServiceUnavailable {
			return fmt.Errorf("%d: %s", status, body)
		}
		if status != http.StatusOK || body != "sleeper is awake\n" {
			t.Fatalf("a held request: %d\n%s", status, body)
		}
		return nil
	})
}
