package vmhost

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/seed"
	"lodge/vmhost/template"
)

// newImage makes a disk of 1 MiB and returns an image of it.
func newImage(t *testing.T) image.Image {
	t.Helper()
	img := image.Image{Name: "tiny", Disk: filepath.Join(t.TempDir(), "tiny.raw"), Templatable: true}
	gatewaytest.Must(t, os.WriteFile(img.Disk, make([]byte, 1<<20), 0o600))
	var err error
	img.Sum, err = disk.Sum(t.Context(), img.Disk)
	gatewaytest.Must(t, err)
	return img
}

const cpuinfo = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n" +
	"microcode\t: 0x1000065\ncpu MHz\t\t: 2596.146\nflags\t\t: fpu vme de\nbogomips\t: 5192.29\n\nprocessor\t: 1\nvendor_id\t: AuthenticAMD\n"

// Guests under KVM see the host's CPU: its identity changes with what they see, and with nothing
// else.
func TestCPUOf(t *testing.T) {
	own := cpuOf(cpuinfo)
	for name, row := range map[string]struct {
		old, new string
		same     bool
	}{
		"clock":           {"2596.146", "3100.002", true},
		"speed":           {"5192.29", "6000.00", true},
		"processor":       {"processor\t: 0", "processor\t: 7", true},
		"more processors": {"\nprocessor\t: 1", "\nprocessor\t: 1\nflags\t\t: other", true},
		"vendor":          {"AuthenticAMD\ncpu", "GenuineIntel\ncpu", false},
		"family":          {": 25", ": 26", false},
		"model":           {": 17", ": 18", false},
		"name":            {"EPYC", "Ryzen", false},
		"stepping":        {"stepping\t: 1", "stepping\t: 2", false},
		"one flag more":   {"vme de", "vme de pse", false},
		"one flag less":   {"vme de", "vme", false},
	} {
		if !strings.Contains(cpuinfo, row.old) {
			t.Fatalf("%s: no %q", name, row.old)
		}
		if got := cpuOf(strings.Replace(cpuinfo, row.old, row.new, 1)); (got == own) != row.same {
			t.Errorf("%s: %s, and it was %s; want the same: %v", name, got, own, row.same)
		}
	}
	if id, err := hostCPU(); err != nil || len(id) != 16 {
		t.Errorf("this host: %q, %v", id, err)
	}
}

// However many VMs wait for a template, it is made once. A failure is kept for templateRetry, then
// tried again.
func TestRequestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, err := newTemplates(t.TempDir())
		gatewaytest.Must(t, err)
		img, one, two := image.Image{Name: "tiny"}, template.Key{CPUs: 1}, template.Key{CPUs: 2}
		first := all.request(img, one)
		if all.request(img, one) != first || all.request(img, two) == first || len(all.requests) != 2 {
			t.Errorf("%d builds for two keys", len(all.requests))
		}
		broken := errors.New("broken")
		all.end(<-all.requests, broken)
		<-first.done
		time.Sleep(templateRetry - time.Second) //nolint:forbidigo // no time passes in a bubble
		if again := all.request(img, one); again != first || !errors.Is(again.err, broken) || len(all.requests) != 1 {
			t.Errorf("a short time after a failure: %+v", again)
		}
		time.Sleep(time.Second) //nolint:forbidigo // no time passes in a bubble
		second := all.request(img, one)
		if second == first || second.err != nil || len(all.requests) != 2 {
			t.Errorf("after templateRetry: %+v", second)
		}
		all.end(<-all.requests, nil) // that of two
		all.end(<-all.requests, nil)
		<-second.done
		if third := all.request(img, one); third == second || len(all.requests) != 1 {
			t.Errorf("after a success, when the template was removed: %+v", third)
		}
	})
}

// A full queue is an error at once, and it is not kept.
func TestRequestsAreLimited(t *testing.T) {
	all, err := newTemplates(t.TempDir())
	gatewaytest.Must(t, err)
	n := 0
	for ; n <= cap(all.requests); n++ {
		b := all.request(image.Image{}, template.Key{CPUs: n})
		select {
		case <-b.done:
			if b.err == nil || n < cap(all.requests) {
				t.Fatalf("request %d ended with %v", n, b.err)
			}
		default:
			if n == cap(all.requests) {
				t.Fatalf("request %d of at most %d waits", n, cap(all.requests))
			}
		}
	}
	all.end(<-all.requests, nil)
	if b := all.request(image.Image{}, template.Key{CPUs: n - 1}); b.err != nil {
		t.Errorf("once there is room: %v", b.err)
	}
}

// A VM waits for a template that is made. When that fails, this VM and the next ones get the
// reason, and nothing is left.
func TestFindTemplateWaits(t *testing.T) {
	h, img := newHost(t), newImage(t)
	key := template.Key{Image: img.Name, Sum: img.Sum, CPUs: 1, MemoryMiB: 128}
	waits := 0
	waiting := func() { waits++ }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.findTemplate(ended, img, key, waiting); !errors.Is(err, context.Canceled) || waits != 1 {
		t.Errorf("its caller gave up: %v after %d waits", err, waits)
	}
	ctx, stop := context.WithCancel(t.Context())
	running := make(chan struct{})
	go func() {
		defer close(running)
		h.makeTemplates(ctx)
	}()
	for range 2 {
		_, err := h.findTemplate(t.Context(), img, key, waiting)
		if gateway.KindOf(err) != gateway.KindUnavailable || !strings.Contains(err.Error(), "libvirtd does not answer") {
			t.Errorf("got %v", err)
		}
	}
	if waits > 2 {
		t.Errorf("%d waits: it waits for a failure that is known", waits)
	}
	stop()
	<-running
	if left, err := os.ReadDir(h.templates.store.Dir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// The disk of a template is that of its key, or there is none.
func TestMakeTemplateDisk(t *testing.T) {
	h, img := newHost(t), newImage(t)
	for name, sum := range map[string]string{"same": img.Sum, "replaced": strings.Repeat("0", 64)} {
		b := &templateBuild{key: template.Key{Image: img.Name, Sum: sum}, img: img}
		draft, err := h.templates.store.Draft(b.key)
		gatewaytest.Must(t, err)
		err = h.makeTemplateDisk(t.Context(), b, draft)
		if sum != img.Sum {
			if err == nil || !strings.Contains(err.Error(), "has changed since it was built") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		gatewaytest.Must(t, err)
		if info, err := os.Stat(filepath.Join(draft.Dir, "seed")); err != nil || info.Size() != seed.Bytes {
			t.Errorf("seed: %v, %v", info, err)
		}
		if got, err := disk.Sum(t.Context(), draft.Disk); err != nil || got != img.Sum {
			t.Errorf("disk: %s, %v", got, err)
		}
	}
}

// The end of the wait for a template's guest is the line on its console, or the end of the time.
func TestAwaitTemplate(t *testing.T) {
	h := newHost(t)
	def := libvirt.Definition{Log: filepath.Join(t.TempDir(), "console.log"), VM: gateway.Identity{ID: gateway.NewID()}}
	late := errors.New("late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)
	if err := h.awaitTemplate(ctx, def); !errors.Is(err, late) {
		t.Errorf("got %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.awaitTemplate(t.Context(), def) }()
	appendTo(t, def.Log, "Linux version 6.12\r\nlodge: waiting")
	appendTo(t, def.Log, " for an identity\r\n")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
