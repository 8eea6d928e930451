package vmhost_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/disk"
	"lodge/vmhost/libvirt/libvirttest"
	"lodge/vmhost/template"
)

// tinyWaits is what the tiny guest writes as the guest of a template.
const tinyWaits = "lodge: waiting for an identity\r\n"

// templatable makes the rig's image one whose guests wait for an identity.
func (r *rig) templatable(t *testing.T, greeting string) {
	t.Helper()
	dir := filepath.Join(r.config.StateDir, "images")
	libvirttest.TinyDiskWith(t, filepath.Join(dir, "tiny.raw"), greeting)
	sum, err := disk.Sum(t.Context(), filepath.Join(dir, "tiny.raw"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "tiny.json"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := map[string]any{}
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	manifest["sum"], manifest["templatable"] = sum, true
	if text, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tiny.json"), text)
}

// newTemplateRig is newRig with an image whose guests wait for an identity.
func newTemplateRig(t *testing.T, parent string) *rig {
	t.Helper()
	r := newRig(t, parent)
	r.templatable(t, tinyWaits)
	return r
}

// phases makes a VM and returns the phases and texts that were reported.
func (r *rig) phases(ctx context.Context, name string) (m gateway.VM, all string, err error) {
	m, err = r.host.New(ctx, gateway.Spec{Name: name}, func(p gateway.Progress) { all += p.Phase + ": " + p.Text + "\n" })
	return m, all, err
}

// resumed makes a VM, which must be resumed from a template.
func (r *rig) resumed(t *testing.T, name string) gateway.VM {
	t.Helper()
	m, all, err := r.phases(t.Context(), name)
	if err != nil {
		t.Fatalf("make %s: %v\n%s", name, err, all)
	}
	if r.base(t, m) == "" || strings.Contains(all, "boot:") {
		t.Fatalf("%s was not resumed:\n%s", name, all)
	}
	r.wantState(t, m.ID, "running")
	return m
}

// base returns the template below a VM's disk; empty if there is none.
func (r *rig) base(t *testing.T, m gateway.VM) string {
	t.Helper()
	all, err := r.config.Layers.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if id, ok := strings.CutPrefix(string(l.Parent), "template/"); ok && l.ID == m.Disk {
			return id
		}
	}
	return ""
}

// wantEcho checks that the VM's guest reads and writes its console.
func (r *rig) wantEcho(t *testing.T, id gateway.ID, key string) {
	t.Helper()
	r.press(t, id, key)
	gatewaytest.Eventually(t, func() error {
		text, _ := os.ReadFile(filepath.Join(r.config.StateDir, "console", id.String()+".log")) // absent is empty
		if !strings.HasSuffix(string(text), key) {
			return fmt.Errorf("the console has %q", text)
		}
		return nil
	})
}

func (r *rig) templates(t *testing.T) []template.Template {
	t.Helper()
	all, err := r.host.Templates()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantNoTemplates checks that nothing of any template is left.
func (r *rig) wantNoTemplates(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.config.StateDir, "templates"))
	if err != nil || len(entries) != 0 {
		t.Errorf("the directory of templates has %v (%v)", entries, err)
	}
	if domains := virsh(t, "list", "--all", "--name"); strings.Contains(domains, "template") {
		t.Errorf("a template's guest runs: %s", domains)
	}
}
