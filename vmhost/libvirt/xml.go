package libvirt

import (
	"fmt"

	"lodge/gateway"

	"libvirt.org/go/libvirtxml"
)

// Definition is all that libvirt needs to run a VM. Paths are absolute.
type Definition struct {
	VM        gateway.Identity
	CPUs      int
	MemoryMiB int
	KVM       bool // hardware virtualization; otherwise QEMU translates (TCG)

	Disk       string // the root disk, whose first boot sector starts the guest; none when empty
	DiskFormat string // "raw" or "qcow2": never guessed from a disk that a guest has written to
	Seed       string // the NoCloud ISO; none when empty

	Kernel, Initrd, Cmdline string // direct kernel boot when Kernel is set

	Console string // the unix socket of the serial console; QEMU listens, for one client at a time
	Log     string // the file that everything on the serial console is appended to
}

// XML writes the domain's definition (https://libvirt.org/formatdomain.html).
//
// It behaves as a laptop does: a reboot from inside restarts it, a poweroff leaves it off, and a
// kernel panic that the guest reports restarts it. There is no display and no USB: each device
// costs boot time.
func (d Definition) XML() (string, error) {
	kind := "qemu"
	if d.KVM {
		kind = "kvm"
	}
	dom := libvirtxml.Domain{
		Type:       kind,
		Name:       DomainName(d.VM.ID),
		UUID:       d.VM.ID.String(),
		Title:      d.VM.Name,
		Memory:     &libvirtxml.DomainMemory{Value: uint(d.MemoryMiB), Unit: "MiB"},
		VCPU:       &libvirtxml.DomainVCPU{Value: uint(d.CPUs)},
		OS:         d.os(),
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}},
		CPU:        d.cpu(),
		Clock:      &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff: "destroy",
		OnReboot:   "restart",
		OnCrash:    "restart",
		Devices:    d.devices(),
	}
	text, err := dom.Marshal()
	if err != nil {
		return "", fmt.Errorf("write domain definition: %w", err)
	}
	return text, nil
}

// os chooses the "pc" board: fewer devices to probe than q35, so it boots quicker, above all under
// TCG.
func (d Definition) os() *libvirtxml.DomainOS {
	os := &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "pc", Type: "hvm"}}
	if d.Kernel != "" {
		os.Kernel, os.Initrd, os.Cmdline = d.Kernel, d.Initrd, d.Cmdline
		return os
	}
	os.BootDevices = []libvirtxml.DomainBootDevice{{Dev: "hd"}}
	return os
}

func (d Definition) cpu() *libvirtxml.DomainCPU {
	if d.KVM {
		return &libvirtxml.DomainCPU{Mode: "host-passthrough"}
	}
	return &libvirtxml.DomainCPU{Mode: "maximum"} // all that TCG can do: some programs need more than baseline x86-64
}

func (d Definition) devices() *libvirtxml.DomainDeviceList {
	port := uint(0)
	devices := &libvirtxml.DomainDeviceList{
		Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
		Interfaces:  []libvirtxml.DomainInterface{d.network()},
		Serials: []libvirtxml.DomainSerial{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind", Path: d.Console}},
			Log:    &libvirtxml.DomainChardevLog{File: d.Log, Append: "on"},
			Target: &libvirtxml.DomainSerialTarget{Port: &port},
		}},
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}}, // libvirt picks the path
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"}},
		}},
		Videos:     []libvirtxml.DomainVideo{{Model: libvirtxml.DomainVideoModel{Type: "none"}}},
		MemBalloon: &libvirtxml.DomainMemBalloon{Model: "virtio", FreePageReporting: "on"}, // memory freed inside goes back to the host
		RNGs: []libvirtxml.DomainRNG{{
			Model:   "virtio",
			Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}},
		}},
		Panics: []libvirtxml.DomainPanic{{Model: "isa"}},
	}
	if d.Disk != "" {
		devices.Disks = append(devices.Disks, d.root())
	}
	if d.Seed != "" {
		devices.Disks = append(devices.Disks, d.seed())
	}
	return devices
}

// network is the VM's tap, which exists already with its rules; libvirt neither makes nor removes
// it.
func (d Definition) network() libvirtxml.DomainInterface {
	return libvirtxml.DomainInterface{
		MAC:    &libvirtxml.DomainInterfaceMAC{Address: d.VM.MAC().String()},
		Source: &libvirtxml.DomainInterfaceSource{Ethernet: &libvirtxml.DomainInterfaceSourceEthernet{}},
		Target: &libvirtxml.DomainInterfaceTarget{Dev: d.VM.Tap(), Managed: "no"},
		Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		ROM:    &libvirtxml.DomainROM{Enabled: "no"}, // no network boot to wait for
	}
}

// root is the guest's disk. With cache "writeback" guest writes go to the host's page cache, which
// survives a crash of QEMU. A flush returns once its data is on the host's disk, as with "none".
// Unlike "none" it needs no O_DIRECT, which tmpfs lacks and which fails checksums on Btrfs. A full
// host disk pauses the VM instead of failing its writes; vmhost resumes it.
func (d Definition) root() libvirtxml.DomainDisk {
	return libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{
			Name: "qemu", Type: d.DiskFormat, Cache: "writeback", Discard: "unmap", DetectZeros: "unmap",
			ErrorPolicy: "enospace", RErrorPolicy: "report",
		},
		Source: file(d.Disk),
		Target: &libvirtxml.DomainDiskTarget{Dev: "vda", Bus: "virtio"},
		Serial: "root",
	}
}

// seed is a read-only virtio disk rather than a CD-ROM: one driver less to load, and no IDE
// controller to probe.
func (d Definition) seed() libvirtxml.DomainDisk {
	return libvirtxml.DomainDisk{
		Device:   "disk",
		Driver:   &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source:   file(d.Seed),
		Target:   &libvirtxml.DomainDiskTarget{Dev: "vdb", Bus: "virtio"},
		ReadOnly: &libvirtxml.DomainDiskReadOnly{},
		Serial:   "seed",
	}
}

func file(path string) *libvirtxml.DomainDiskSource {
	return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}}
}
