package vmhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/vmhost/disk"
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
}

// templateBuild is one build of a template, under way or failed.
type templateBuild struct {
	key  template.Key
	img  image.Image
	done chan struct{} // closed at the end
	err  error         // valid after done
	at   time.Time     // of the failure
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
	key := template.Key{
		Image: img.Name, Sum: img.Sum, QEMU: qemu, Libvirt: virt, Board: libvirt.Board, Accel: "tcg", CPU: "maximum",
		CPUs: size.CPUs, MemoryMiB: size.MemoryMiB,
	}
	if kvm {
		key.Accel = "kvm"
		key.CPU, err = hostCPU()
	}
	return key, err
}

// findTemplate returns the template for a key. If there is none, it waits until one is made. It
// fails if that failed a short time ago.
func (h *Host) findTemplate(ctx context.Context, img image.Image, key template.Key, waiting func()) (template.Template, error) {
	found, err := h.templates.store.Find(ctx, key)
	if gateway.KindOf(err) != gateway.KindNotFound {
		return found, err
	}
	b := h.templates.request(img, key)
	select {
	case <-b.done:
	default:
		waiting()
	}
	select {
	case <-b.done:
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
	if b := t.builds[key]; b != nil && (b.at.IsZero() || time.Since(b.at) < templateRetry) {
		return b
	}
	b := &templateBuild{key: key, img: img, done: make(chan struct{})}
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
		b.at = time.Now()
	}
	close(b.done)
}

// PrepareTemplate has the template for VMs of the default size made, unless there is one. It does
// not wait.
func (h *Host) PrepareTemplate(ctx context.Context) {
	img, err := image.Open(h.cfg.imageDir(), h.cfg.Defaults.Image)
	if err != nil {
		return // the first VM of another image has its template made
	}
	key, err := h.templateKey(ctx, img, h.cfg.Defaults)
	if err != nil {
		return // New has the same error, and reports it
	}
	if _, err := h.templates.store.Find(ctx, key); gateway.KindOf(err) == gateway.KindNotFound {
		h.templates.request(img, key)
	}
}

// makeTemplates makes the templates that are requested, until ctx ends.
func (h *Host) makeTemplates(ctx context.Context) {
	h.sweepTemplates(ctx)
	for {
		select {
		case <-ctx.Done():
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

// makeTemplate boots a guest without an identity, and saves it once it waits for one.
func (h *Host) makeTemplate(ctx context.Context, b *templateBuild) (made template.Template, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, templateLimit, errors.New("its guest did not boot in time"))
	defer cancel()
	h.templates.guest.Lock()
	defer h.templates.guest.Unlock()
	if err := h.virt.EndTemplates(ctx); err != nil { // before anything is made
		return made, err
	}
	store := h.templates.store
	if err := disk.CheckRoom(store.Dir(), b.img.Disk); err != nil {
		return made, err
	}
	draft, err := store.Draft(b.key)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, draft.Discard()) }()
	if err := h.makeTemplateDisk(ctx, b, draft); err != nil {
		return made, explainFull(err, store.Dir())
	}
	def := libvirt.Definition{
		VM: gateway.Identity{ID: gateway.NewID(), Name: "template"}, Template: true, Generation: gateway.NewID(),
		CPUs: b.key.CPUs, MemoryMiB: b.key.MemoryMiB, KVM: b.key.Accel == "kvm",
		Disk: draft.Disk, DiskFormat: "raw", Seed: filepath.Join(draft.Dir, "seed"),
		Console: h.cfg.consoleFile(gateway.ID{}), Log: filepath.Join(draft.Dir, "console.log"),
	}
	defer func() {
		if err != nil {
			_ = h.virt.EndTemplates(context.WithoutCancel(ctx)) // the next build tries again
		}
	}()
	if err := h.virt.StartTemplate(ctx, def); err != nil {
		return made, err
	}
	if err := h.awaitTemplate(ctx, def); err != nil {
		return made, err
	}
	if err := h.virt.SaveTemplate(ctx, def, draft.Memory); err != nil {
		return made, err
	}
	made, err = draft.Publish(ctx)
	return made, explainFull(err, store.Dir())
}

// makeTemplateDisk copies the image's disk, whose content must be that of the key: somebody may
// have replaced the image meanwhile. The seed is empty.
func (h *Host) makeTemplateDisk(ctx context.Context, b *templateBuild, draft *template.Draft) error {
	if err := disk.CopyTemp(ctx, draft.Disk, b.img.Disk); err != nil {
		return err
	}
	sum, err := disk.Sum(ctx, draft.Disk)
	if err != nil {
		return err
	}
	if sum != b.key.Sum {
		return fmt.Errorf("the disk of the image %s has changed since it was built", b.img.Name)
	}
	blank, err := os.Create(filepath.Join(draft.Dir, "seed"))
	if err != nil {
		return fmt.Errorf("make seed: %w", err)
	}
	return errors.Join(blank.Truncate(seed.Bytes), blank.Close())
}

// awaitTemplate waits until the guest waits for an identity.
func (h *Host) awaitTemplate(ctx context.Context, def libvirt.Definition) error {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for last, size := time.Now(), 0; ; {
		text, err := os.ReadFile(def.Log)
		if len(text) > size {
			last, size = time.Now(), len(text)
		}
		switch {
		case bytes.Contains(text, []byte(waitingLine)):
			return nil
		case err != nil && !os.IsNotExist(err):
			return fmt.Errorf("read console of the template: %w", err)
		case time.Since(last) > templateStall:
			return fmt.Errorf("the guest of the template has written nothing for %s", templateStall)
		}
		state, err := h.virt.State(ctx, def.VM.ID)
		if err == nil && state != libvirt.Running {
			return fmt.Errorf("the guest of the template ended: its state is %s", state)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// endStrayTemplates ends the guests of templates that an earlier daemon, or an earlier libvirtd, has
// left.
func (h *Host) endStrayTemplates(ctx context.Context) {
	if !h.templates.guest.TryLock() {
		return
	}
	defer h.templates.guest.Unlock()
	if err := h.virt.EndTemplates(ctx); err != nil && ctx.Err() == nil {
		h.log.WarnContext(ctx, "guests of templates were not ended", "err", err)
	}
}

// sweepTemplates removes the templates that no new VM can use, those past maxTemplates, and disks
// without a user.
func (h *Host) sweepTemplates(ctx context.Context) {
	all, err := h.templates.store.List()
	seen := map[template.Key]bool{}
	for i, t := range all {
		if i < maxTemplates && !seen[t.Key] && h.isCurrent(ctx, t) {
			seen[t.Key] = true
			continue
		}
		err = errors.Join(err, h.RemoveTemplate(t.ID))
	}
	if err = errors.Join(err, h.sweepDisks()); err != nil && ctx.Err() == nil {
		h.log.ErrorContext(ctx, "templates were not removed", "err", err)
	}
}

// sweepDisks removes the disks of removed templates that no VM needs any more.
func (h *Host) sweepDisks() error {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	return h.templates.store.Sweep(h.isBase)
}

// isCurrent reports whether a new VM could use the template: its image, QEMU and libvirt are those
// of now. If that cannot be found out, it is.
func (h *Host) isCurrent(ctx context.Context, t template.Template) bool {
	img, err := image.Open(h.cfg.imageDir(), t.Key.Image)
	if err != nil {
		return gateway.KindOf(err) != gateway.KindNotFound
	}
	key, err := h.templateKey(ctx, img, gateway.Size{CPUs: t.Key.CPUs, MemoryMiB: t.Key.MemoryMiB})
	return err != nil || key == t.Key
}

// isBase reports whether the disk of a VM has the template's as its base.
func (h *Host) isBase(id string) bool {
	for _, m := range h.dir.All() {
		if m.Base == id {
			return true
		}
	}
	return false
}

// Templates returns the templates, the one used last first.
func (h *Host) Templates() ([]template.Template, error) { return h.templates.store.List() }

// RemoveTemplate removes a template. VMs that came from it keep their disks.
func (h *Host) RemoveTemplate(id string) error {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	return h.templates.store.Remove(id, h.isBase(id))
}
