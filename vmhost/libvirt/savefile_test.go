package libvirt

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"
)

// cookie is what libvirt 9.0 keeps about a migration.
const cookie = "<cookie>\n  <slirpHelper/>\n</cookie>\n"

// savedXML is the definition in a save file that libvirt 9.0 has written for a template.
func savedXML(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "saved.xml"))
	gatewaytest.Must(tb, err)
	return string(text)
}

// savedHead is the part of a save file before the migration stream, as libvirt 9.0 writes it: 64 KiB
// of NULs follow the cookie.
func savedHead(xml string) []byte {
	data := append([]byte(xml+"\x00"+cookie+"\x00"), make([]byte, 64<<10)...)
	return append(head(saveVersion, len(data), len(xml)+1), data...)
}

// head is the header of a save file of a guest that ran.
func head(version, dataLen, cookieOffset int) []byte {
	text := []byte(saveMagic)
	for _, n := range []int{version, dataLen, 1, 0, cookieOffset} {
		text = binary.LittleEndian.AppendUint32(text, uint32(n))
	}
	return append(text, make([]byte, saveHeaderSize-len(text))...)
}

// stream is a migration stream, or at least as long as its beginning.
func stream() []byte {
	random := rand.NewChaCha8([32]byte{1})
	text := append([]byte("QEVM\x00\x00\x00\x03"), make([]byte, 300_001)...)
	_, _ = random.Read(text[8:]) // it never fails
	return text
}

// adopting is a VM that is resumed from a template.
func adopting() Definition {
	return Definition{
		VM: gateway.Identity{
			ID: gateway.ID{0xa0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}, Number: 0x1f, Name: "blog",
			Addr: netip.MustParseAddr("10.213.0.31"),
		},
		Generation: gateway.ID{0xb0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}, CPUs: 2, MemoryMiB: 1024,
		Disks: []Disk{
			{"/var/lib/lodge/disks/a0.qcow2", gateway.QCOW2}, {"/var/lib/lodge/templates/debian-13-2cpu-1024mib-hxk3v7qa/disk", gateway.Raw},
		},
		Seed: "/var/lib/lodge/disks/a0.seed", Console: "/run/lodge/console/a0.sock", Log: "/var/lib/lodge/console/a0.log",
	}
}

func writeSaved(tb testing.TB, text []byte) (file string) {
	tb.Helper()
	file = filepath.Join(tb.TempDir(), "memory")
	gatewaytest.Must(tb, os.WriteFile(file, text, 0o600))
	return file
}

// What belongs to one VM is that of the VM; the rest of the file, above all the migration stream,
// stays as it was.
func TestAdopt(t *testing.T) {
	before := append(savedHead(savedXML(t)), stream()...)
	file := writeSaved(t, before)
	gatewaytest.Must(t, Adopt(file, adopting()))
	after, err := os.ReadFile(file)
	gatewaytest.Must(t, err)
	was, err := readSaveData(bytes.NewReader(before))
	gatewaytest.Must(t, err)
	is, err := readSaveData(bytes.NewReader(after))
	gatewaytest.Must(t, err)
	want := was.header
	if want.CookieOffset = uint32(len(is.xml)) + 1; is.header != want || string(is.cookie) != cookie {
		t.Errorf("header %+v with cookie %q, want %+v", is.header, is.cookie, want)
	}
	if begin := saveHeaderSize + int(want.DataLen); len(after) != len(before) || !bytes.Equal(after[begin:], stream()) {
		t.Errorf("the stream has changed: %d bytes of %d", len(after), len(before))
	}
	golden := filepath.Join("testdata", "adopted.xml")
	if flag.Lookup("update").Value.String() == "true" {
		gatewaytest.Must(t, os.WriteFile(golden, append(is.xml, '\n'), 0o600))
	}
	text, err := os.ReadFile(golden)
	gatewaytest.Must(t, err)
	if diff := cmp.Diff(string(text), string(is.xml)+"\n"); diff != "" {
		t.Errorf("the definition differs from %s (-want +got; -update if that is meant):\n%s", golden, diff)
	}
}

// The memory depends on each device at its address: nothing but what is named here may change.
func TestAdoptKeepsTheMachine(t *testing.T) {
	file := writeSaved(t, savedHead(savedXML(t)))
	gatewaytest.Must(t, Adopt(file, adopting()))
	text, err := os.ReadFile(file)
	gatewaytest.Must(t, err)
	data, err := readSaveData(bytes.NewReader(text))
	gatewaytest.Must(t, err)
	var want, got libvirtxml.Domain
	gatewaytest.Must(t, errors.Join(want.Unmarshal(savedXML(t)), got.Unmarshal(string(data.xml))))
	if len(got.Devices.Disks) != 2 || len(got.Devices.Interfaces) != 1 {
		t.Fatalf("%d disks, %d interfaces", len(got.Devices.Disks), len(got.Devices.Interfaces))
	}
	own := adopting()
	want.Name, want.UUID, want.Title, want.GenID.Value = DomainName(own.VM.ID), own.VM.ID.String(), "blog", own.Generation.String()
	want.QEMUCapabilities = own.domain().QEMUCapabilities
	want.QEMUCapabilities.XMLName = xml.Name{Space: "http://libvirt.org/schemas/domain/qemu/1.0", Local: "capabilities"}
	root, seed := &want.Devices.Disks[0], &want.Devices.Disks[1]
	root.Driver.Type, root.Source.File.File = "qcow2", own.Disks[0].File
	root.BackingStore = &libvirtxml.DomainDiskBackingStore{
		Format: &libvirtxml.DomainDiskFormat{Type: "raw"}, BackingStore: &libvirtxml.DomainDiskBackingStore{},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{
			File: own.Disks[1].File, SecLabel: []libvirtxml.DomainDeviceSecLabel{{Model: "dac", Relabel: "no"}},
		}},
	}
	seed.Source.File.File, seed.Serial, seed.BackingStore = own.Seed, "seed", nil // a raw disk has none
	network := want.Devices.Interfaces[0]
	network.MAC.Address, network.Target.Dev, network.Target.Managed = "52:54:00:00:00:1f", "lg0000001f", "no"
	for _, serial := range []struct {
		source *libvirtxml.DomainChardevSource
		log    *libvirtxml.DomainChardevLog
	}{{want.Devices.Serials[0].Source, want.Devices.Serials[0].Log}, {want.Devices.Consoles[0].Source, want.Devices.Consoles[0].Log}} {
		serial.source.UNIX.Path, serial.log.File = own.Console, own.Log
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b libvirtxml.DomainDisk) bool { return marshal(t, &a) == marshal(t, &b) })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for i := range got.Devices.Disks {
		if got.Devices.Disks[i].Address == nil {
			t.Errorf("disk %d has no address", i)
		}
	}
}

func marshal(t *testing.T, disk *libvirtxml.DomainDisk) string {
	t.Helper()
	text, err := disk.Marshal()
	gatewaytest.Must(t, err)
	return text
}

// A file in the way that an operator's save_image_format compresses it stays compressed, and one of
// an old libvirt has no cookie.
func TestAdoptOtherFiles(t *testing.T) {
	compressed := savedHead(savedXML(t))
	compressed[28] = 5
	old := []byte(savedXML(t) + "\x00" + strings.Repeat("\x00", 4096))
	for name, text := range map[string][]byte{"compressed": compressed, "without a cookie": append(head(saveVersion, len(old), 0), old...)} {
		was, err := readSaveData(bytes.NewReader(text))
		gatewaytest.Must(t, err)
		file := writeSaved(t, text)
		gatewaytest.Must(t, Adopt(file, adopting()))
		after, err := os.ReadFile(file)
		gatewaytest.Must(t, err)
		is, err := readSaveData(bytes.NewReader(after))
		if err != nil || is.header.Compressed != was.header.Compressed || !bytes.Equal(is.cookie, was.cookie) || len(after) != len(text) {
			t.Errorf("%s: %+v, cookie %q, %v", name, is.header, is.cookie, err)
		}
	}
}

// A file that this package does not know is refused, and not written to.
func TestAdoptRefuses(t *testing.T) {
	xml := savedXML(t)
	good := savedHead(xml)
	change := func(at int, b ...byte) []byte {
		return append(append(bytes.Clone(good[:at]), b...), good[at+len(b):]...)
	}
	altered := func(old, new string) []byte {
		if !strings.Contains(xml, old) {
			t.Fatalf("no %q in the definition", old)
		}
		return savedHead(strings.Replace(xml, old, new, 1))
	}
	_, interfaces, _ := strings.Cut(xml, "<interface")
	network, _, _ := strings.Cut(interfaces, "</interface>")
	long := adopting()
	long.Log = strings.Repeat("x", 70_000)
	noSeed := adopting()
	noSeed.Seed = ""
	for name, row := range map[string]struct {
		text []byte
		def  Definition
	}{
		"incomplete":                {change(0, []byte("LibvirtQemudPart")...), adopting()}, // libvirt's mark while it saves
		"version 1":                 {change(16, 1), adopting()},
		"version 3":                 {change(16, 3), adopting()},
		"the other byte order":      {change(16, 0, 0, 0, 2), adopting()},
		"huge":                      {change(20, 0, 0, 0, 255), adopting()},
		"no data":                   {head(saveVersion, 0, 0), adopting()},
		"data without an end":       {append(head(saveVersion, 4, 0), "<a/>"...), adopting()},
		"cookie behind the data":    {change(32, 0, 0, 0, 1), adopting()},
		"cookie in the definition":  {change(32, 5, 0), adopting()},
		"cookie without an end":     {append(head(saveVersion, 8, 5), "<a/>\x00abc"...), adopting()},
		"cut at the first byte":     {good[:1], adopting()},
		"cut in the header":         {good[:50], adopting()},
		"cut in the definition":     {good[:1000], adopting()},
		"cut in the padding":        {good[:len(good)-1], adopting()},
		"not XML":                   {savedHead("<domain"), adopting()},
		"no devices":                {savedHead("<domain></domain>"), adopting()},
		"one disk":                  {good, noSeed},
		"two interfaces":            {altered("<interface", "<interface"+network+"</interface><interface"), adopting()},
		"no interface":              {altered("<interface"+network+"</interface>", ""), adopting()},
		"two serial ports":          {altered("<serial type", "<serial type='pty'/><serial type"), adopting()},
		"two consoles":              {altered("<console type", "<console type='pty'/><console type"), adopting()},
		"definition that is longer": {good, long},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeSaved(t, row.text)
			err := Adopt(file, row.def)
			want := errSaveFormat
			if strings.HasPrefix(name, "cut") {
				want = io.ErrUnexpectedEOF
			}
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if text, err := os.ReadFile(file); err != nil || !bytes.Equal(text, row.text) {
				t.Errorf("the file has changed, %v", err)
			}
		})
	}
	if err := Adopt(filepath.Join(t.TempDir(), "absent"), adopting()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

// Whatever a save file contains, Adopt does not panic and holds at most maxSaveData of it. What it
// has written reads back with the same cookie, length and stream.
func FuzzAdopt(f *testing.F) {
	xml := savedXML(f)
	short := []byte(xml + "\x00" + cookie + "\x00" + strings.Repeat("\x00", 2000))
	f.Add(append(append(head(saveVersion, len(short), len(xml)+1), short...), "QEVM"...))
	f.Add(savedHead("<domain><devices><interface/><serial/></devices></domain>"))
	f.Add(append(head(saveVersion, 8, 5), "<a/>\x00bc\x00"...))
	file, err := os.Create(filepath.Join(f.TempDir(), "memory"))
	gatewaytest.Must(f, err)
	defer file.Close()
	f.Fuzz(func(t *testing.T, text []byte) {
		was, err := readSaveData(bytes.NewReader(text))
		if cap(was.xml) > maxSaveData || cap(was.cookie) > maxSaveData {
			t.Fatalf("it holds %d and %d bytes", cap(was.xml), cap(was.cookie))
		}
		_, errWrite := file.WriteAt(text, 0)
		_, errSeek := file.Seek(0, io.SeekStart)
		gatewaytest.Must(t, errors.Join(errWrite, file.Truncate(int64(len(text))), errSeek))
		if errAdopt := adopt(file, adopting()); errAdopt != nil {
			return
		}
		if err != nil {
			t.Fatalf("adopted a file that cannot be read: %v", err)
		}
		after := make([]byte, len(text)+1)
		n, _ := file.ReadAt(after, 0) // io.EOF
		is, err := readSaveData(bytes.NewReader(after[:n]))
		begin := saveHeaderSize + int(was.header.DataLen)
		if err != nil || !bytes.Equal(is.cookie, was.cookie) || (is.cookie == nil) != (was.cookie == nil) || n != len(text) ||
			!bytes.Equal(after[begin:n], text[begin:]) {
			t.Fatalf("%v: cookie %q, was %q; %d bytes, was %d", err, is.cookie, was.cookie, n, len(text))
		}
		if !strings.Contains(string(is.xml), fmt.Sprintf("<uuid>%s</uuid>", adopting().VM.ID)) {
			t.Error("it has another UUID")
		}
	})
}
