package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"libvirt.org/go/libvirtxml"
)

// A save file of libvirt's QEMU driver (src/qemu/qemu_saveimage.h): this header; then, in DataLen
// bytes, the domain's definition, a NUL, libvirt's own data about the migration and a NUL (both
// absent in old files), and NULs; then QEMU's migration stream.
type saveHeader struct {
	Magic        [16]byte
	Version      uint32
	DataLen      uint32
	WasRunning   uint32
	Compressed   uint32
	CookieOffset uint32
	Unused       [14]uint32
}

const (
	saveMagic      = "LibvirtQemudSave"
	saveVersion    = 2
	saveHeaderSize = 92
	maxSaveData    = 16 << 20 // definitions have some 4 KiB, and libvirt pads them to 64 KiB
)

// errSaveFormat is for a file that this package does not read: a damaged one, or one of another
// version of libvirt.
var errSaveFormat = errors.New("not a save file of a known format")

// saveData is the part of a save file before the migration stream.
type saveData struct {
	header saveHeader
	xml    []byte
	cookie []byte
}

// readSaveData reads from the beginning of a save file.
func readSaveData(r io.Reader) (d saveData, err error) {
	if err := binary.Read(r, binary.LittleEndian, &d.header); err != nil {
		return d, fmt.Errorf("read save file: %w", err)
	}
	h := d.header
	if string(h.Magic[:]) != saveMagic || h.Version != saveVersion || h.DataLen > maxSaveData || h.CookieOffset >= max(h.DataLen, 1) {
		return d, errSaveFormat
	}
	data := make([]byte, h.DataLen)
	if _, err := io.ReadFull(r, data); err != nil {
		return d, fmt.Errorf("read save file: %w", err)
	}
	var ok bool
	if d.xml, _, ok = bytes.Cut(data, []byte{0}); !ok {
		return d, errSaveFormat
	}
	if h.CookieOffset == 0 {
		return d, nil
	}
	if d.cookie, _, ok = bytes.Cut(data[h.CookieOffset:], []byte{0}); !ok || int(h.CookieOffset) <= len(d.xml) {
		return d, errSaveFormat
	}
	return d, nil
}

// bytes is what replaces the same part of the file: it has the same length. It fails when there is
// no room for the definition.
func (d saveData) bytes() ([]byte, error) {
	data := append(bytes.Clone(d.xml), 0)
	if d.header.CookieOffset = 0; d.cookie != nil {
		d.header.CookieOffset = uint32(len(data)) //nolint:gosec // DataLen limits it
		data = append(append(data, d.cookie...), 0)
	}
	room := int(d.header.DataLen) - len(data)
	if room < 0 {
		return nil, fmt.Errorf("%w: no room for a definition of %d bytes", errSaveFormat, len(d.xml))
	}
	all := bytes.NewBuffer(make([]byte, 0, saveHeaderSize+int(d.header.DataLen)))
	if err := binary.Write(all, binary.LittleEndian, d.header); err != nil {
		return nil, fmt.Errorf("write save file: %w", err)
	}
	all.Write(data)
	all.Write(make([]byte, room))
	return all.Bytes(), nil
}

// Adopt rewrites file, a copy of a template's save file, into that of the VM of def: its name, UUID,
// generation, disks, network interface and console. What the guest's memory depends on, such as the
// devices and their addresses, stays. After an error the file is of no use.
func Adopt(file string, def Definition) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("adopt save file: %w", err)
	}
	err = adopt(f, def)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("adopt save file: %w", err)
	}
	return nil
}

func adopt(f *os.File, def Definition) error {
	d, err := readSaveData(f)
	if err != nil {
		return err
	}
	text, err := def.over(string(d.xml))
	if err != nil {
		return err
	}
	d.xml = []byte(text)
	all, err := d.bytes()
	if err != nil {
		return err
	}
	_, err = f.WriteAt(all, 0)
	return err
}

// over returns a saved domain's definition with what is d's own.
func (d Definition) over(saved string) (string, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(saved); err != nil {
		return "", fmt.Errorf("%w: %w", errSaveFormat, err)
	}
	own := d.domain()
	dom.ID, dom.Name, dom.UUID, dom.Title, dom.GenID, dom.SecLabel = nil, own.Name, own.UUID, own.Title, own.GenID, nil
	dom.OnReboot, dom.QEMUCapabilities = own.OnReboot, own.QEMUCapabilities
	have, want := dom.Devices, own.Devices
	if have == nil || len(have.Disks) != len(want.Disks) || len(have.Interfaces) != 1 || len(have.Serials) != 1 || len(have.Consoles) > 1 {
		return "", fmt.Errorf("%w: the template has other devices than the VM", errSaveFormat)
	}
	for i, disk := range want.Disks {
		disk.Address = have.Disks[i].Address
		have.Disks[i] = disk
	}
	network := want.Interfaces[0]
	network.Address, network.Link = have.Interfaces[0].Address, have.Interfaces[0].Link
	have.Interfaces[0] = network
	have.Serials[0].Source, have.Serials[0].Log = want.Serials[0].Source, want.Serials[0].Log
	for i := range have.Consoles { // libvirt's second view of the same device
		have.Consoles[i].Source, have.Consoles[i].Log = want.Serials[0].Source, want.Serials[0].Log
	}
	text, err := dom.Marshal()
	if err != nil {
		return "", fmt.Errorf("write domain definition: %w", err)
	}
	return text, nil
}
