package vmhost_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/libvirt/libvirttest"
	"lodge/vmhost/template"
)

// Two VMs from one template are two machines: other UUIDs, MACs, generations, disks and consoles.
// Each boots from its own disk afterwards, and the template's disk stays as long as one needs it.
func TestResume(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newTemplateRig(t, "/var/tmp")
	one := r.resumed(t, "one")
	r.wantEcho(t, one.ID, "1")
	two := r.resumed(t, "two")
	r.wantEcho(t, two.ID, "2")
	if r.base(t, one) != r.base(t, two) || len(r.templates(t)) != 1 {
		t.Errorf("two VMs of one size come from %q and %q; there are %v", r.base(t, one), r.base(t, two), r.templates(t))
	}
	r.wantLog(t, one.ID, "1")
	a, b := virsh(t, "dumpxml", "lodge-"+one.ID.String()), virsh(t, "dumpxml", "lodge-"+two.ID.String())
	for _, element := range []string{"uuid", "genid", "name", "title"} {
		if x, y := inner(a, element), inner(b, element); x == "" || x == y {
			t.Errorf("both have the %s %q", element, x)
		}
	}
	if !strings.Contains(a, one.MAC().String()) || strings.Contains(b, one.MAC().String()) || strings.Contains(a+b, "00:00:00:00'") {
		t.Errorf("wrong MACs:\n%s\n%s", a, b)
	}

	if err := r.host.Restart(t.Context(), one.ID); err != nil {
		t.Fatal(err)
	}
	r.wantLog(t, one.ID, "1"+tinyWaits) // it has booted
	if err := r.host.RemoveTemplate(r.base(t, one)); err != nil {
		t.Fatal(err)
	}
	if err := r.host.Remove(t.Context(), one.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.host.Restart(t.Context(), two.ID); err != nil {
		t.Errorf("start a VM whose template was removed: %v", err)
	}
	if err := r.host.Remove(t.Context(), two.ID); err != nil {
		t.Fatal(err)
	}
	r.wantNothing(t)
	r.wantNoTemplates(t)
}

// inner is the text of the first element with a name.
func inner(xml, element string) string {
	_, rest, _ := strings.Cut(xml, "<"+element+">")
	text, _, _ := strings.Cut(rest, "</"+element+">")
	return text
}

// A VM boots, and the progress has the reason, when its template is cut or altered.
func TestDamagedTemplate(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newTemplateRig(t, "/var/tmp")
	r.resumed(t, "first")
	for name, damage := range map[string]func(file string) error{
		"cut":     func(file string) error { return os.Truncate(file, 1<<16) },
		"altered": func(file string) error { return alter(file, 70000) },
	} {
		for _, part := range []string{"disk", "memory"} {
			found := r.templates(t)[0]
			file := map[string]string{"disk": found.Disk, "memory": found.Memory}[part]
			if err := damage(file); err != nil {
				t.Fatal(err)
			}
			m, all, err := r.phases(t.Context(), "booted")
			if err != nil || r.base(t, m) != "" || !strings.Contains(all, "boot: booting: the template "+found.ID+" is damaged") {
				t.Errorf("%s %s: %v, base %q\n%s", name, part, err, r.base(t, m), all)
			}
			r.waitGreetingsOf(t, m.ID, tinyWaits, 1)
			if err := r.host.Remove(t.Context(), m.ID); err != nil {
				t.Fatal(err)
			}
			if next := r.resumed(t, "after-"+name+"-"+part); r.base(t, next) == found.ID {
				t.Error("the damaged template was used")
			}
		}
	}
}

// alter changes one byte of a file.
func alter(file string, at int64) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	b[0] ^= 1
	_, errWrite := f.WriteAt(b, at)
	return errors.Join(err, errWrite, f.Close())
}

// waitGreetingsOf waits until the VM's guest has written text n times.
func (r *rig) waitGreetingsOf(t *testing.T, id gateway.ID, text string, n int) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		log, _ := os.ReadFile(filepath.Join(r.config.StateDir, "console", id.String()+".log")) // absent is empty
		if got := strings.Count(string(log), text); got != n {
			return fmt.Errorf("%d times %q, want %d", got, text, n)
		}
		return nil
	})
}

// A template of another image, or of another version of QEMU, is not used; it is replaced.
func TestOutdatedTemplate(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newTemplateRig(t, "/var/tmp")
	first := r.resumed(t, "first")
	r.templatable(t, "another image, "+tinyWaits)
	second := r.resumed(t, "second")
	if r.base(t, second) == r.base(t, first) {
		t.Error("a template of the old image was used")
	}
	file := filepath.Join(r.config.StateDir, "templates", r.base(t, second), "template.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, []byte(strings.Replace(string(text), `"qemu": `, `"qemu": 1`, 1)))
	third := r.resumed(t, "third")
	if r.base(t, third) == r.base(t, second) {
		t.Error("a template of another QEMU was used")
	}
	gatewaytest.Eventually(t, func() error {
		if all := r.templates(t); len(all) != 1 || all[0].ID != r.base(t, third) {
			return fmt.Errorf("there are %v", all)
		}
		return nil
	})
	for _, m := range []gateway.VM{first, second} { // their disks are still there
		if err := r.host.Restart(t.Context(), m.ID); err != nil {
			t.Error(err)
		}
	}
}

// VMs that are made at the same time wait for one build.
func TestTwoAtOnce(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newTemplateRig(t, "/var/tmp")
	var all sync.WaitGroup
	made := make([]gateway.VM, 3)
	for i := range made {
		all.Go(func() {
			m, text, err := r.phases(t.Context(), fmt.Sprintf("vm%d", i))
			if made[i] = m; err != nil || r.base(t, m) == "" {
				t.Errorf("%v, base %q\n%s", err, r.base(t, m), text)
			}
		})
	}
	all.Wait()
	if found := r.templates(t); len(found) != 1 {
		t.Errorf("there are %d templates", len(found))
	}
	for i, m := range made {
		r.wantEcho(t, m.ID, fmt.Sprint(i))
	}
}

// When the guest of a template dies, or its libvirtd, or this daemon ends, a VM is booted or not made
// at all, nothing of the template is left, and the next daemon makes one.
func TestTemplateFails(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	for name, fail := range map[string]func(*rig){
		"QEMU is killed":     func(*rig) { killTemplate(t) },
		"libvirtd is killed": func(*rig) { daemon.Kill() },
		"lodged ends":        func(r *rig) { r.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "/var/tmp")
			r.templatable(t, "silent\r\n") // so that the build does not end by itself
			ended := make(chan string, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				m, all, err := r.phases(ctx, "blog")
				ended <- fmt.Sprintf("%v base=%q\n%s", err, r.base(t, m), all)
			}()
			gatewaytest.Eventually(t, func() error {
				if !strings.Contains(virsh(t, "list", "--name"), "lodge-template-") {
					return errors.New("the template's guest does not run yet")
				}
				return nil
			})
			fail(r)
			switch name {
			case "QEMU is killed":
				if got := <-ended; !strings.Contains(got, "<nil> base=\"\"") || !strings.Contains(got, "boot: booting: ") {
					t.Errorf("New: %s", got)
				}
			case "libvirtd is killed":
				daemon.Again(t)
				cancel()
				<-ended
			default:
				cancel()
				<-ended
			}
			r.stop()
			r.templatable(t, tinyWaits)
			r.run(t)
			r.resumed(t, "again")
			if found, err := os.ReadDir(filepath.Join(r.config.StateDir, "templates")); err != nil || len(found) != 1 {
				t.Errorf("the directory of templates has %v (%v)", found, err)
			}
			gatewaytest.Eventually(t, func() error {
				if domains := virsh(t, "list", "--all", "--name"); strings.Contains(domains, "template") {
					return fmt.Errorf("a template's guest runs: %s", domains)
				}
				return nil
			})
			for _, m := range r.config.Directory.All() {
				if err := r.host.Remove(t.Context(), m.ID); err != nil {
					t.Error(err)
				}
			}
			r.wantNothing(t)
		})
	}
}

// killTemplate kills the QEMU of the template's guest.
func killTemplate(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("/run/libvirt/qemu/lodge-template-*.pid")
	if err != nil || len(files) != 1 {
		t.Fatalf("%d guests of templates: %v", len(files), err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	kill(t, pid, syscall.SIGKILL)
}

// On a disk that becomes full at any step, a VM is made whole or not at all, and nothing is left of
// one that failed.
func TestTemplateOnAFullDisk(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newTemplateRig(t, sandboxtest.SmallDisk(t, 64<<20))
	for _, free := range []int64{0, 64 << 10, 1 << 20, 2 << 20, 5 << 20, 6 << 20, 8 << 20, 12 << 20, 20 << 20} {
		filler := filepath.Join(r.config.StateDir, "filler")
		fillUp(t, filler, free)
		m, all, err := r.phases(t.Context(), "blog")
		t.Logf("%d KiB free: %v, base %q: %s", free>>10, err, r.base(t, m), strings.ReplaceAll(all, "\n", "; "))
		switch {
		case err == nil:
			r.wantState(t, m.ID, "running")
			if err := r.host.Remove(t.Context(), m.ID); err != nil {
				t.Error(err)
			}
		case gateway.KindOf(err) != gateway.KindNoSpace:
			t.Errorf("with %d bytes free: %v", free, err)
		}
		r.wantNothing(t)
		r.stop()
		for _, found := range r.templates(t) {
			if err := r.host.RemoveTemplate(found.ID); err != nil {
				t.Error(err)
			}
		}
		// As the next daemon does first: libvirtd may go on for a moment with a guest whose daemon has ended.
		if _, err := template.NewStore(filepath.Join(r.config.StateDir, "templates")); err != nil {
			t.Error(err)
		}
		r.wantNoTemplates(t)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		r.run(t) // which does not remember the failure
	}
	r.resumed(t, "last")
}

// fillUp leaves so many bytes free on the file system of file.
func fillUp(t *testing.T, file string, free int64) {
	t.Helper()
	var room syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(file), &room); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it has no content
	if size := int64(room.Bavail)*room.Bsize - free; size > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
			t.Fatal(err)
		}
	}
}
