package vmhost

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/accel"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/template"
)

// publishTemplate makes a template for a key, with files of any content.
func publishTemplate(t *testing.T, h *Host, key template.Key) template.Template {
	t.Helper()
	draft, err := h.templates.store.Draft(key)
	gatewaytest.Must(t, err)
	for _, file := range []string{draft.Disk, draft.Memory} {
		gatewaytest.Must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	}
	made, err := draft.Publish(t.Context())
	gatewaytest.Must(t, err)
	return made
}

// A VM that cannot be resumed boots, and its owner gets the reason. One that was asked to boot gets
// none.
func TestChooseSource(t *testing.T) {
	h := newHost(t)
	h.accel = accel.New(accel.TCG, "", h.log) // without a probe of KVM
	for name, row := range map[string]struct {
		spec        gateway.Spec
		templatable bool
		want        string // in the report; none if empty
	}{
		"asked to boot":   {gateway.Spec{Boot: true}, true, ""},
		"direct boot":     {gateway.Spec{Size: gateway.Size{DirectBoot: true}}, true, ""},
		"older image":     {gateway.Spec{}, false, "booting: the image tiny has no support for templates"},
		"without libvirt": {gateway.Spec{}, true, "booting: libvirtd does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			img := newImage(t)
			img.Templatable = row.templatable
			var reports []string
			report := func(phase, text string) { reports = append(reports, phase+" "+text) }
			s, err := h.chooseSource(t.Context(), row.spec, img, report)
			if err != nil || s.template.ID != "" || s.img.Name != "tiny" {
				t.Errorf("source %+v, %v", s, err)
			}
			if got := strings.Join(reports, "\n"); row.want == "" && got != "" || !strings.HasPrefix(strings.TrimPrefix(got, "boot "), row.want) {
				t.Errorf("reported %q, want %q", got, row.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.chooseSource(ctx, gateway.Spec{}, newImage(t), func(string, string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("its caller gave up: %v", err)
	}
}

// From the claim of a VM on, the disk of its template stays, whoever removes the template, until
// the last VM that needs it is removed.
func TestClaimKeepsTheDisk(t *testing.T) {
	h := newHost(t)
	made := publishTemplate(t, h, template.Key{Image: "tiny", CPUs: 1})
	s := source{template: made}
	m, err := h.claim(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Size: gateway.Size{DiskGiB: 2}}, &s)
	gatewaytest.Must(t, err)
	if stored, _ := h.dir.ByID(m.ID); parent(t, h, stored) != "template/"+made.ID || s.template.ID != made.ID {
		t.Errorf("the VM's disk is over %q, its source %+v", parent(t, h, stored), s.template)
	}
	gatewaytest.Must(t, h.RemoveTemplate(made.ID))
	if all, err := h.Templates(); err != nil || len(all) != 0 {
		t.Errorf("listed: %v, %v", all, err)
	}
	gatewaytest.Must(t, h.sweepLayers(t.Context(), gateway.ID{}))
	if _, err := os.Stat(made.Disk); err != nil {
		t.Errorf("the disk below that of a VM: %v", err)
	}
	gatewaytest.Must(t, h.sweepLayers(t.Context(), m.ID))
	if _, err := os.Stat(filepath.Dir(made.Disk)); !os.IsNotExist(err) {
		t.Errorf("the disk without a VM: %v", err)
	}
}

// A template that is removed between the search and the claim is not used.
func TestClaimOfARemovedTemplate(t *testing.T) {
	h := newHost(t)
	made := publishTemplate(t, h, template.Key{Image: "tiny", CPUs: 1})
	gatewaytest.Must(t, h.RemoveTemplate(made.ID))
	s := source{img: newImage(t), template: made}
	m, err := h.claim(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Size: gateway.Size{DiskGiB: 2}}, &s)
	if err != nil || parent(t, h, m) != "image/"+image.ContentName("tiny", s.img.Sum) || s.template.ID != "" {
		t.Errorf("the disk is over %q, source %+v, %v", parent(t, h, m), s.template, err)
	}
}

// parent returns the layer below a VM's own.
func parent(t *testing.T, h *Host, m gateway.VM) string {
	t.Helper()
	chain, err := h.layers.Chain(m.Disk)
	gatewaytest.Must(t, err)
	return string(chain[0].Parent)
}

// The templates of an image that is gone are removed, and so are those past maxTemplates. Without
// libvirtd nothing else is known to be out of date.
func TestSweepTemplates(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.cfg.StateDir, "images")
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "tiny.json"), []byte("damaged"), 0o600))
	if _, err := image.Open(dir, "tiny"); gateway.KindOf(err) != gateway.KindInvalid {
		t.Fatalf("the image is not damaged: %v", err)
	}
	publishTemplate(t, h, template.Key{Image: "gone", CPUs: 1})
	var kept []string
	for i := range maxTemplates + 1 {
		kept = append(kept, publishTemplate(t, h, template.Key{Image: "tiny", CPUs: i}).ID)
	}
	h.sweepTemplates(t.Context())
	all, err := h.Templates()
	gatewaytest.Must(t, err)
	for i, found := range all {
		if want := kept[len(kept)-1-i]; found.ID != want {
			t.Errorf("template %d is %s, want %s", i, found.ID, want)
		}
	}
	if len(all) != maxTemplates {
		t.Errorf("%d templates are left", len(all))
	}
}

// The definition of a VM names all layers of its disk. It is not started without one of them.
func TestDefinitionOfDisks(t *testing.T) {
	old, resumed := newVM("old", gateway.Running), newVM("resumed", gateway.Running)
	old.Disk, resumed.Disk = "old", "resumed"
	layers := new(gatewaytest.Layers)
	gatewaytest.Must(t, layers.Put(t.Context(),
		gateway.Layer{ID: "old", VM: old.ID, File: "disks/old.img", Format: gateway.Raw, State: gateway.LayerReady},
		gateway.Layer{ID: "template/tiny", File: "templates/tiny/disk", Format: gateway.Raw, State: gateway.LayerReady},
		gateway.Layer{ID: "lower", Parent: "template/tiny", VM: resumed.ID, File: "disks/lower.qcow2", Format: gateway.QCOW2, State: gateway.LayerReady},
		gateway.Layer{ID: "resumed", Parent: "lower", VM: resumed.ID, File: "disks/upper.qcow2", Format: gateway.QCOW2, State: gateway.LayerReady}))
	h := newHostOver(t, layers, old, resumed)
	h.accel = accel.New(accel.TCG, "", h.log)
	file := func(name string) string { return filepath.Join(h.cfg.StateDir, name) }
	gatewaytest.Must(t, os.Mkdir(file("templates/tiny"), 0o700))
	for _, name := range []string{"disks/old.img", "disks/upper.qcow2", "templates/tiny/disk"} {
		gatewaytest.Must(t, os.WriteFile(file(name), nil, 0o600))
	}
	_, err := h.definition(t.Context(), resumed)
	if e, ok := errors.AsType[*gateway.Error](err); !ok || e.Kind != gateway.KindConflict || !strings.Contains(e.Msg, file("disks/lower.qcow2")) || !strings.Contains(e.Hint, "backup") {
		t.Errorf("without a layer: %v (%+v)", err, e)
	}
	gatewaytest.Must(t, os.WriteFile(file("disks/lower.qcow2"), nil, 0o600))
	for _, row := range []struct {
		vm    gateway.VM
		disks []libvirt.Disk
	}{
		{old, []libvirt.Disk{{File: file("disks/old.img"), Format: gateway.Raw}}},
		{resumed, []libvirt.Disk{
			{File: file("disks/upper.qcow2"), Format: gateway.QCOW2},
			{File: file("disks/lower.qcow2"), Format: gateway.QCOW2},
			{File: file("templates/tiny/disk"), Format: gateway.Raw},
		}},
	} {
		def, err := h.definition(t.Context(), row.vm)
		if diff := cmp.Diff(row.disks, def.Disks); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", row.vm.Name, err, diff)
		}
		again, err := h.definition(t.Context(), row.vm)
		if err != nil || again.Generation == def.Generation {
			t.Errorf("%s: two starts have the generation %s, %v", row.vm.Name, def.Generation, err)
		}
	}
	unknown := newVM("unknown", gateway.Running)
	if _, err := h.definition(t.Context(), unknown); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a VM without a layer: %v", err)
	}
}

// What a daemon left that was killed while it resumed a VM is removed, and no disk.
func TestRemoveMemories(t *testing.T) {
	h := newHost(t)
	id := gateway.NewID()
	disks := h.cfg.diskDir()
	for _, file := range []string{h.cfg.memoryFile(id), filepath.Join(disks, "a.img"), filepath.Join(disks, "b.qcow2"), h.cfg.seedFile(id)} {
		gatewaytest.Must(t, os.WriteFile(file, nil, 0o600))
	}
	gatewaytest.Must(t, h.removeMemories())
	left, err := os.ReadDir(h.cfg.diskDir())
	if _, errStat := os.Stat(h.cfg.memoryFile(id)); err != nil || len(left) != 3 || !os.IsNotExist(errStat) {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A disk that is the base of an overlay stays, even if the database with the VM's record was lost.
func TestBaseOfAnOverlayWithoutARecord(t *testing.T) {
	h := newHost(t)
	used, unused := publishTemplate(t, h, template.Key{Image: "gone", CPUs: 1}), publishTemplate(t, h, template.Key{Image: "gone", CPUs: 2})
	gatewaytest.Must(t, disk.Overlay{Base: used.Disk, Format: gateway.Raw, Bytes: 2 << 30}.Create(t.Context(), filepath.Join(h.cfg.diskDir(), "lost.qcow2")))
	h.sweepTemplates(t.Context())
	if _, err := os.Stat(used.Disk); err != nil {
		t.Errorf("the base of an overlay is gone: %v", err)
	}
	if _, err := os.Stat(unused.Disk); err == nil {
		t.Error("a disk without a user is left")
	}
	unknown := publishTemplate(t, h, template.Key{Image: "gone", CPUs: 3})
	gatewaytest.Must(t, os.WriteFile(filepath.Join(h.cfg.diskDir(), "lost2.qcow2"), []byte("damaged"), 0o600))
	h.sweepTemplates(t.Context())
	if _, err := os.Stat(unknown.Disk); err != nil {
		t.Errorf("a disk that a damaged overlay may need is gone: %v", err)
	}
}
