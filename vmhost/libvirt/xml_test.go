package libvirt_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"lodge/gateway"
	"lodge/vmhost/libvirt"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"
)

var update = flag.Bool("update", false, "write the golden files anew")

func blog() libvirt.Definition {
	return libvirt.Definition{
		VM: gateway.Identity{
			ID: gateway.ID{0xa0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}, Number: 0x1f, Name: "blog",
			Addr: netip.MustParseAddr("10.213.0.31"),
		},
		CPUs: 2, MemoryMiB: 1024, KVM: true,
		Disks: []libvirt.Disk{{File: "/var/lib/lodge/disks/a0.img", Format: gateway.Raw}}, Seed: "/var/lib/lodge/disks/a0.seed",
		Console: "/run/lodge/console/a0.sock", Log: "/var/lib/lodge/console/a0.log",
	}
}

func TestXML(t *testing.T) {
	direct := blog()
	direct.KVM = false
	direct.Kernel, direct.Initrd, direct.Cmdline = "/images/vmlinuz", "/images/initrd", "root=PARTUUID=1-01 console=ttyS0"
	template := blog()
	template.Template, template.Seed = true, "/var/lib/lodge/templates/.draft-1/seed"
	template.Disks = []libvirt.Disk{{File: "/var/lib/lodge/templates/.draft-1/disk", Format: gateway.Raw}}
	template.VM.Number, template.VM.Name = 0, "template"
	overlay := blog()
	overlay.Generation = gateway.ID{0xb0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}
	overlay.Disks = []libvirt.Disk{
		{File: "/var/lib/lodge/disks/a0.qcow2", Format: gateway.QCOW2},
		{File: "/var/lib/lodge/templates/debian-13-2cpu-1024mib-hxk3v7qa/disk", Format: gateway.Raw},
	}
	chain := overlay
	chain.Disks = append([]libvirt.Disk{{File: "/var/lib/lodge/disks/c2.qcow2", Format: gateway.QCOW2}, {File: "/var/lib/lodge/disks/b1.qcow2", Format: gateway.QCOW2}}, overlay.Disks[1])
	reader := chain
	reader.Reader, reader.Seed, reader.Files = true, "", []string{"/var/lib/lodge/readers/1/script", "/var/lib/lodge/readers/1/status"}
	reader.Kernel, reader.Initrd, reader.Cmdline = direct.Kernel, direct.Initrd, direct.Cmdline
	for name, def := range map[string]libvirt.Definition{
		"disk": blog(), "direct": direct, "template": template, "overlay": overlay, "chain": chain, "reader": reader,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := def.XML()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".xml")
			if *update {
				if err := os.WriteFile(golden, []byte(got+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got+"\n"); diff != "" {
				t.Errorf("XML differs from %s (-want +got; -update if that is meant):\n%s", golden, diff)
			}
		})
	}
}

// Whatever a name, a path or a kernel's command line contains, it stays one value and adds no
// element.
func FuzzXMLKeepsValuesApart(f *testing.F) {
	f.Add("/disks/a'b<c>.img", `root=/dev/vda init="/bin/sh" </cmdline><on_crash>destroy</on_crash>`)
	f.Add("/a&amp;b", "]]>")
	f.Fuzz(func(t *testing.T, disk, cmdline string) {
		def := blog()
		def.Disks, def.Kernel, def.Cmdline = []libvirt.Disk{{File: disk, Format: gateway.Raw}}, "/images/vmlinuz", cmdline
		text, err := def.XML()
		if err != nil {
			t.Skip("refused")
		}
		var dom libvirtxml.Domain
		if err := dom.Unmarshal(text); err != nil {
			t.Fatalf("the XML cannot be read: %v\n%s", err, text)
		}
		if dom.OnCrash != "restart" || len(dom.Devices.Interfaces) != 1 || dom.Devices.Interfaces[0].Target.Dev != def.VM.Tap() {
			t.Errorf("the definition was changed by its values:\n%s", text)
		}
	})
}
