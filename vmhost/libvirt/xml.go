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

	// Generation is new at each start. A guest's kernel reseeds its random numbers when it resumes
	// with another one (https://qemu-project.gitlab.io/qemu/specs/vmgenid.html).
	Generation gateway.ID

	// Disks are the files of the root disk, whose first boot sector starts the guest; there is none
	// when it is empty. QEMU writes to the first and only reads the others, each below the one before.
	Disks    []Disk
	Seed     string // the NoCloud ISO; none when empty
	Template bool   // the guest gets no identity: it waits for one (see Client.SaveTemplate)

	// Reader is a guest that only reads a disk, and ends by itself. It has no network. Beside the disk
	// it has raw files: the first one is read-only.
	Reader bool
	Files  []string

	Kernel, Initrd, Cmdline string // direct kernel boot when Kernel is set

	Console string // the unix socket of the serial console; QEMU listens, for one client at a time
	Log     string // the file that everything on the serial console is appended to
}

// Disk is one file of a chain. The format is never guessed: a guest has written the content.
type Disk struct {
	File   string
	Format gateway.DiskFormat
}

// XML writes the domain's definition (https://libvirt.org/formatdomain.html).
//
// It behaves as a laptop does: a reboot from inside restarts it, a poweroff leaves it off, and a
// kernel panic that the guest reports restarts it. There is no display and no USB: each device
// costs boot time.
func (d Definition) XML() (string, error) {
	text, err := d.domain().Marshal()
	if err != nil {
		return "", fmt.Errorf("write domain definition: %w", err)
	}
	return text, nil
}

func (d Definition) domain() *libvirtxml.Domain {
	onReboot, onCrash := "restart", "restart"
	if d.Template || d.Reader {
		onReboot = "destroy" // it reboots only if it fails
	}
	if d.Reader {
		onCrash = "destroy"
	}
	kind := "qemu"
	if d.KVM {
		kind = "kvm"
	}
	return &libvirtxml.Domain{
		Type:       kind,
		Name:       d.name(),
		UUID:       d.VM.ID.String(),
		GenID:      &libvirtxml.DomainGenID{Value: d.Generation.String()},
		Title:      d.VM.Name,
		Memory:     &libvirtxml.DomainMemory{Value: uint(d.MemoryMiB), Unit: "MiB"},
		VCPU:       &libvirtxml.DomainVCPU{Value: uint(d.CPUs)},
		OS:         d.os(),
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}},
		CPU:        d.cpu(),
		Clock:      &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff: "destroy",
		OnReboot:   onReboot,
		OnCrash:    onCrash,
		Devices:    d.devices(),

		QEMUCapabilities: oneQuery(),
	}
}

// oneQuery has libvirt read the CPU's features from QEMU in one query, since it compares none of them for
// the CPUs of cpu. By its other way it reads some 350 properties one by one, and QEMU each of its commands
// byte by byte: more than half of the time of a start. The name is in libvirt's files of running domains,
// so that no version of it stops reading it.
func oneQuery() *libvirtxml.DomainQEMUCapabilities {
	return &libvirtxml.DomainQEMUCapabilities{Del: []libvirtxml.DomainQEMUCapabilitiesEntry{{Name: "cpu-unavailable-features"}}}
}

// name is that of the domain. List takes no template or reader for a VM.
func (d Definition) name() string {
	switch {
	case d.Template:
		return templatePrefix + d.VM.ID.String()
	case d.Reader:
		return readerPrefix + d.VM.ID.String()
	default:
		return DomainName(d.VM.ID)
	}
}

// Board is libvirt's name of the guests' machine type.
const Board = "pc"

// os chooses the "pc" board: fewer devices to probe than q35, so it boots quicker, above all under
// TCG.
func (d Definition) os() *libvirtxml.DomainOS {
	os := &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: Board, Type: "hvm"}}
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
	if len(d.Disks) > 0 {
		devices.Disks = append(devices.Disks, d.root())
	}
	if d.Seed != "" {
		devices.Disks = append(devices.Disks, d.seed())
	}
	for i, path := range d.Files {
		devices.Disks = append(devices.Disks, rawFile(i, path))
	}
	if !d.Reader {
		devices.Interfaces = []libvirtxml.DomainInterface{d.network()}
	}
	return devices
}

// network is the VM's tap. That of a template is made and removed by libvirt; no rule lets its
// packets through.
func (d Definition) network() libvirtxml.DomainInterface {
	target := &libvirtxml.DomainInterfaceTarget{Dev: d.VM.Tap(), Managed: "no"}
	if d.Template {
		target.Managed = ""
	}
	return libvirtxml.DomainInterface{
		MAC:    &libvirtxml.DomainInterfaceMAC{Address: d.VM.MAC().String()},
		Source: &libvirtxml.DomainInterfaceSource{Ethernet: &libvirtxml.DomainInterfaceSourceEthernet{}},
		Target: target,
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
			Name: "qemu", Type: string(d.Disks[0].Format), Cache: "writeback", Discard: "unmap", DetectZeros: "unmap",
			ErrorPolicy: "enospace", RErrorPolicy: "report",
		},
		Source:       file(d.Disks[0].File),
		BackingStore: backing(d.Disks[1:]),
		Target:       &libvirtxml.DomainDiskTarget{Dev: "vda", Bus: "virtio"},
		Serial:       "root",
	}
}

// backing is the rest of the root disk's chain. It has an end, so that libvirt never probes a disk
// for another link. The files keep their owner: QEMU reads them, and a guest that takes QEMU over
// cannot write to them.
func backing(disks []Disk) *libvirtxml.DomainDiskBackingStore {
	if len(disks) == 0 {
		return &libvirtxml.DomainDiskBackingStore{}
	}
	source := file(disks[0].File)
	source.File.SecLabel = []libvirtxml.DomainDeviceSecLabel{{Model: "dac", Relabel: "no"}}
	return &libvirtxml.DomainDiskBackingStore{
		Format: &libvirtxml.DomainDiskFormat{Type: string(disks[0].Format)}, Source: source, BackingStore: backing(disks[1:]),
	}
}

// seed is a read-only virtio disk rather than a CD-ROM: one driver less to load, and no IDE
// controller to probe.
//
// The serial is that of the image's own programs (vmhost/image): they read it from the device at
// each access, so a template's guest sees when it has become a VM.
func (d Definition) seed() libvirtxml.DomainDisk {
	serial := "seed"
	if d.Template {
		serial = "template"
	}
	return libvirtxml.DomainDisk{
		Device:   "disk",
		Driver:   &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source:   file(d.Seed),
		Target:   &libvirtxml.DomainDiskTarget{Dev: "vdb", Bus: "virtio"},
		ReadOnly: &libvirtxml.DomainDiskReadOnly{},
		Serial:   serial,
	}
}

// rawFile is a file of a reader, of which the first is vdb.
func rawFile(i int, path string) libvirtxml.DomainDisk {
	disk := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source: file(path),
		Target: &libvirtxml.DomainDiskTarget{Dev: "vd" + string(rune('b'+i)), Bus: "virtio"},
	}
	if i == 0 {
		disk.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	}
	return disk
}

func file(path string) *libvirtxml.DomainDiskSource {
	return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}}
}
