package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// changes: a VM to which nothing was done has no changes. What is done to it is listed, and a VM that
// is made from its recipe is the same, but for secrets and large files.
func (s *suite) changes(t *testing.T) {
	shop := s.fresh(t, "shop")
	shop.Run(t, "sudo systemctl is-system-running --wait")
	if got := s.h.Lodge(t, "diff", "shop"); strings.Contains(got, "package") || strings.Contains(got, "/") {
		t.Errorf("a new VM differs from its image:\n%s", got)
	}
	script, err := os.ReadFile("testdata/build-shop.sh")
	if err != nil {
		t.Fatal(err)
	}
	shop.Run(t, "sudo sh -s <<'SCRIPT'\n"+string(script)+"SCRIPT")

	got := s.h.Lodge(t, "diff", "shop", "--text")
	contains(t, "lodge diff", strings.Join(strings.Fields(got), " "), "package added shop-tool 1.2", "user added shopkeeper", "unit enabled shop.service",
		"unit enabled count.timer", "unit masked apt-daily.timer", "directory added /srv/shop/ 6 files", "file added /etc/shop-tool.conf", "file removed /etc/issue.net",
		"file changed /etc/issue mode", "/var/spool/cron/crontabs/shopkeeper", "port open tcp 0.0.0.0:8000 python3", "+welcome to the shop")
	lacks(t, "lodge diff", got, "sk_live", "PRIVATE KEY")

	recipe := s.h.TryLodge(t, "recipe", "shop")
	contains(t, "what was left out", recipe.Stderr, "/srv/shop/.env", "/srv/shop/id_ed25519", "/srv/shop/large")
	lacks(t, "lodge recipe", recipe.Stdout, "sk_live", "PRIVATE KEY")
	whole := s.h.TryLodge(t, "recipe", "shop", "--objects", "shop/recipe/")
	contains(t, "what was left out", whole.Stderr, "/srv/shop/.env", "/srv/shop/id_ed25519")
	lacks(t, "what was left out", whole.Stderr, `left out: "/srv/shop/large`)
	lacks(t, "lodge recipe --objects", whole.Stdout, "sk_live", "PRIVATE KEY")
	file := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, []byte(whole.Stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	twin := s.fresh(t, "shop2", "--user-data", file)
	twin.Run(t, "sudo cloud-init status --wait >/dev/null || sudo cat /var/log/cloud-init-output.log")
	if page := twin.Run(t, "for i in $(seq 60); do curl -sf http://127.0.0.1:8000/open.html && break; sleep 1; done"); !strings.Contains(page, "The shop is open") {
		t.Errorf("the page: %q", page)
	}
	want, same := s.built(t, "shop"), s.built(t, "shop2")
	if diff := cmp.Diff(want, same); diff != "" {
		t.Errorf("the VM made from the recipe differs:\n%s\n%s", diff, twin.Run(t, "sudo cat /var/log/cloud-init-output.log"))
	}
	const large = "sudo sha256sum /srv/shop/large"
	if want, got := shop.Run(t, large), twin.Run(t, large); got != want {
		t.Errorf("the large file that the recipe fetches: %s, want %s", got, want)
	}
	s.examinedOff(t, twin, same)
	s.notExamined(t, shop)
}

// examinedOff: the disk of a VM that is off has the same changes, and a start does not wait for those
// who look at them.
func (s *suite) examinedOff(t *testing.T, vm *harness.VM, want gateway.Changes) {
	t.Helper()
	vm.Stop(t)
	got := s.builtAs(t, vm.Name, gateway.ChangesQuery{Text: true})
	contains(t, "the text of a VM that is off", got.Text, "+welcome to the shop")
	got.Text, want.Ports = "", got.Ports
	if diff := cmp.Diff(want, got); diff != "" || len(got.Ports) > 0 {
		t.Errorf("the VM differs when it is off (-running +off):\n%s", diff)
	}
	looked := make(chan error, 1)
	go func() {
		_, err := s.h.Client().Changes(t.Context(), vm.Name, gateway.ChangesQuery{})
		looked <- err
	}()
	readers := func() []string {
		left, err := filepath.Glob(filepath.Join(s.h.StateDir, "readers/*/console.log"))
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	gatewaytest.WaitFor(t, "a guest reads the disk", func() bool { return len(readers()) > 0 })
	_, err := s.h.Client().Start(t.Context(), vm.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-looked; gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a VM that is started while it is looked at: %v", err)
	}
	if left := readers(); len(left) > 0 {
		t.Errorf("these guests still read: %v", left)
	}
	if page := vm.Run(t, "for i in $(seq 60); do curl -sf http://127.0.0.1:8000/open.html && break; sleep 1; done"); !strings.Contains(page, "The shop is open") {
		t.Errorf("the page after the start: %q", page)
	}
}

// notExamined: a VM whose image has no list gets an error with the next step.
func (s *suite) notExamined(t *testing.T, vm *harness.VM) {
	t.Helper()
	vm.Run(t, "sudo mv /usr/lib/lodge/image-inventory /usr/lib/lodge/other")
	contains(t, "no list", s.h.TryLodge(t, "diff", vm.Name).Text(), "has no list of what it contained", "lodge image build")
	vm.Run(t, "sudo sh -c 'echo nonsense >/usr/lib/lodge/image-inventory'")
	contains(t, "a list that is none", s.h.TryLodge(t, "diff", vm.Name).Text(), "does not list its files")
	vm.Run(t, "sudo rm /usr/lib/lodge/image-inventory; sudo mkfifo /usr/lib/lodge/image-inventory")
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.h.Client().Changes(ctx, vm.Name, gateway.ChangesQuery{}); err == nil || time.Since(begun) > time.Minute {
		t.Errorf("a guest that never answers: %v after %s", err, time.Since(begun))
	}
	vm.Run(t, "sudo rm /usr/lib/lodge/image-inventory; echo '#!/bin/sh' | sudo tee /usr/bin/head; sudo sync")
	vm.Stop(t)
	contains(t, "a disk that cannot be read", s.h.TryLodge(t, "recipe", vm.Name).Text(), "the disk of "+vm.Name+" could not be read", "lodge start "+vm.Name)
}

// built is what was done to a VM, without what a recipe leaves out and without times.
func (s *suite) built(t *testing.T, vm string) gateway.Changes {
	t.Helper()
	return s.builtAs(t, vm, gateway.ChangesQuery{})
}

func (s *suite) builtAs(t *testing.T, vm string, q gateway.ChangesQuery) gateway.Changes {
	t.Helper()
	c, err := s.h.Client().Changes(t.Context(), vm, q)
	if err != nil {
		t.Fatal(err)
	}
	c.Files = slices.DeleteFunc(c.Files, func(f gateway.FileChange) bool {
		return slices.Contains([]string{
			"/srv/shop/.env", "/srv/shop/id_ed25519", // left out
			"/etc/sudoers.d", "/etc/sudoers.d/90-cloud-init-users", "/home/lodge/.ssh", "/home/lodge/.ssh/authorized_keys", "/root/.ssh/authorized_keys", // cloud-init's
		}, f.Path)
	})
	for i := range c.Files {
		c.Files[i].Modified = time.Time{}
		if c.Files[i].Type == "directory" {
			c.Files[i].Bytes = 0
		}
	}
	c.Ports = slices.DeleteFunc(c.Ports, func(p gateway.OpenPort) bool { return p.Program != "python3" })
	return c
}
