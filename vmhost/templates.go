package vmhost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/seed"
	"lodge/vmhost/template"
)

// maxTemplates is how many templates are kept. A further one replaces the one that was used longest
// ago.
const maxTemplates = 4

// A template's guest has templateLimit to reach the point where it waits for an identity, and
// templateStall to write the next bytes to its console. After a failure new VMs with the same key are
// booted, and the next try is after templateRetry.
const (
	templateLimit = 5 * time.Minute
	templateStall = time.Minute
	templateRetry = time.Hour
)

// waitingLine is what a template's guest writes to its console once it waits for an identity
// (vmhost/image, lodge-identity.service).
const waitingLine = "lodge: waiting for an identity"

// templates makes templates, one at a time, in the goroutine of Host.Run.
type templates struct {
	store    *template.Store
	requests chan *templateBuild

	guest sync.Mutex // held while the guest of a template may run

	mu     sync.Mutex // also held while a template is removed, or gets another user
	builds map[template.Key]*templateBuild
	ended  bool // makeTemplates has returned
}

// templateBuild is one build of a template, under way or failed.
type templateBuild struct {
	key   template.Key
	img   image.Image
	done  chan struct{} // closed at the end
	err   error         // valid after done
	again time.Time     // when it may be tried again, after a failure
}

func newTemplates(dir string) (*templates, error) {
	store, err := template.NewStore(dir)
	if err != nil {
		return nil, err
	}
	return &templates{store: store, requests: make(chan *templateBuild, 64), builds: map[template.Key]*templateBuild{}}, nil
}

// templateKey is the key of the templates for VMs of an image and size. It fails for VMs that
// cannot come from one.
func (h *Host) templateKey(ctx context.Context, img image.Image, size gateway.Size) (template.Key, error) {
	if !img.Templatable {
		return template.Key{}, fmt.Errorf("the image %s has no support for templates", img.Name)
	}
	kvm, err := h.accel.UseKVM(ctx, func() (string, error) { return img.Kernel, nil })
	if err != nil {
		return template.Key{}, err
	}
	qemu, virt, err := h.virt.Versions(ctx)
	if err != nil {
		return template.Key{}, err
	}
	machine, err := machineSum()
	if err != nil {
		return template.Key{}, err
	}
	key := template.Key{
		Image: img.Name, Sum: img.Sum, QEMU: qemu, Libvirt: virt, Machine: machine, CPUs: size.CPUs, MemoryMiB: size.MemoryMiB,
	}
	key.Accel, key.CPU, err = guestCPU(kvm)
	return key, err
}

// guestCPU identifies the CPU that guests have on this host, with its accelerator.
func guestCPU(kvm bool) (accel, cpu string, err error) {
	if !kvm {
		return "tcg", "maximum", nil
	}
	cpu, err = hostCPU()
	return "kvm", cpu + " " + hostKernel(), err
}

// machineSum identifies all that this version of Lodge determines of a guest's devices.
func machineSum() (string, error) {
	text, err := libvirt.Definition{Template: true, Disks: []libvirt.Disk{{File: "disk", Format: gateway.Raw}}, Seed: "seed"}.XML()
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", text, seed.Bytes))
	return hex.EncodeToString(sum[:8]), err
}

// findTemplate returns the template for a key. If there is none, it waits until one is made, at most
// templateLimit. It fails if that failed a short time ago, or if the template is damaged: that one is
// replaced for the VMs to come.
func (h *Host) findTemplate(ctx context.Context, img image.Image, key template.Key, waiting func()) (template.Template, error) {
	found, err := h.templates.store.Find(ctx, key)
	if gateway.KindOf(err) == gateway.KindInvalid {
		h.log.ErrorContext(ctx, "template was damaged", "path", filepath.Dir(found.Disk), "err", err)
		if failed := h.RemoveTemplate(found.ID); failed == nil {
			h.templates.request(img, key)
		}
	}
	if gateway.KindOf(err) != gateway.KindNotFound {
		return found, err
	}
	b := h.templates.request(img, key)
	select {
	case <-b.done:
	default:
		waiting()
	}
	limit := time.NewTimer(templateLimit)
	defer limit.Stop()
	select {
	case <-b.done:
	case <-limit.C:
		return template.Template{}, errors.New("other templates are being made")
	case <-ctx.Done():
		return template.Template{}, ctx.Err()
	}
	if b.err != nil {
		return template.Template{}, b.err
	}
	return h.templates.store.Find(ctx, key)
}

// request returns the build for a key: the one under way, one that failed a short time ago, or a
// new one.
func (t *templates) request(img image.Image, key template.Key) *templateBuild {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.builds[key]; b != nil && (b.again.IsZero() || time.Now().Before(b.again)) {
		return b
	}
	b := &templateBuild{key: key, img: img, done: make(chan struct{})}
	if t.ended {
		b.err = context.Canceled
		close(b.done)
		return b
	}
	select {
	case t.requests <- b:
		t.builds[key] = b
	default:
		b.err = errors.New("too many templates wait to be made")
		close(b.done)
	}
	return b
}

// end records the outcome of a build.
func (t *templates) end(b *templateBuild, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b.err = err
	if err == nil {
		delete(t.builds, b.key)
	} else {
		b.again = time.Now().Add(retryTemplate(err))
	}
	close(b.done)
}

// retryTemplate is the time until the next try after a failure: short for those that pass by
// themselves.
func retryTemplate(err error) time.Duration {
	switch kind := gateway.KindOf(err); {
	case kind == gateway.KindUnavailable, kind == gateway.KindNoSpace, durable.IsFull(err), errors.Is(err, context.Canceled):
		return time.Minute
	default:
		return templateRetry
	}
}

// PrepareTemplate has the template for VMs of the default size made, unless there is one. It does
// not wait for that.
func (h *Host) PrepareTemplate(ctx context.Context) error {
	img, err := image.Open(h.cfg.imageDir(), h.cfg.Defaults.Image)
	if err != nil || !img.Templatable {
		return nil //nolint:nilerr // the first VM of another image has its template made
	}
	key, err := h.templateKey(ctx, img, h.cfg.Defaults)
	if err != nil {
		return err
	}
	if _, err := h.templates.store.Find(ctx, key); gateway.KindOf(err) == gateway.KindNotFound {
		h.templates.request(img, key)
	}
	return nil
}

// prepareFirstTemplate calls PrepareTemplate until it works: libvirtd may start after this daemon.
func (h *Host) prepareFirstTemplate(ctx context.Context) {
	due := time.NewTicker(retryAfter)
	defer due.Stop()
	for h.PrepareTemplate(ctx) != nil {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
	}
}

// makeTemplates makes the templates that are requested, until ctx ends.
func (h *Host) makeTemplates(ctx context.Context) {
	h.sweepTemplates(ctx)
	for {
		select {
		case <-ctx.Done():
			h.templates.endQueued(ctx.Err())
			return
		case b := <-h.templates.requests:
			begun := time.Now()
			made, err := h.makeTemplate(ctx, b)
			if h.templates.end(b, err); err != nil && ctx.Err() == nil {
				h.log.ErrorContext(ctx, "template was not made", "err", err)
			}
			if err == nil {
				h.log.InfoContext(ctx, "template was made", "path", filepath.Dir(made.Disk), "bytes", made.Bytes, "duration", time.Since(begun))
				h.sweepTemplates(ctx)
			}
		}
	}
}

// endQueued ends the builds that have not begun.
func (t *templates) endQueued(err error) {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	for {
		select {
		case b := <-t.requests:
			t.end(b, err)
		default:
			return
		}
	}
}

// errUnusable marks an error of a template, or of the memory of a checkpoint, itself: libvirt could not
// restore it, or its save file could not be read.
var errUnusable = errors.New("the saved memory could not be resumed")

// distrust removes an unusable template: the next VM gets another.
func (h *Host) distrust(ctx context.Context, t template.Template, err error) {
	if !errors.Is(err, errUnusable) || gateway.KindOf(err) == gateway.KindUnavailable || durable.IsFull(err) {
		return
	}
	if err := h.RemoveTemplate(t.ID); err != nil {
		h.log.WarnContext(ctx, "template was not removed", "path", filepath.Dir(t.Disk), "err", err)
	}
}
