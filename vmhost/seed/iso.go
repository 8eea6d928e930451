package seed

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// An ISO 9660 (ECMA-119) file system with its Joliet twin (UCS-2 names), of one directory: enough for a seed, and no
// program has to be installed for it. The first 16 sectors are for boot code; then come:
const (
	isoSector       = 2048
	isoPrimary      = 16 // volume descriptor with upper-case names
	isoJoliet       = 17 // volume descriptor with the names as they are
	isoTerminator   = 18
	isoPathTables   = 19 // two for each volume: little-endian, big-endian
	isoPrimaryRoot  = 23 // root directories, one sector each: room for some thirty files
	isoJolietRoot   = 24
	isoData         = 25
	isoRootRecord   = 34 // bytes
	isoFlagDir      = 2
	isoRecordHeader = 33
)

// file is a file in the root directory. Names are lower-case ASCII; files come sorted by name.
type file struct {
	name string
	data []byte
}

// isoName turns a name into the bytes that a directory has for it.
type isoName func(string) []byte

// iso makes the file system.
func iso(volume string, files []file) []byte {
	sectors := isoData
	for _, f := range files {
		sectors += isoSectors(f)
	}
	image := make([]byte, sectors*isoSector)
	at := func(sector int) []byte { return image[sector*isoSector:] }
	isoVolume(at, isoPrimary, isoPathTables, isoPrimaryRoot, sectors, volume, files, isoPlain)
	isoVolume(at, isoJoliet, isoPathTables+2, isoJolietRoot, sectors, volume, files, isoUCS2)
	copy(at(isoTerminator), "\xffCD001\x01")
	sector := isoData
	for _, f := range files {
		copy(at(sector), f.data)
		sector += isoSectors(f)
	}
	return image
}

func isoSectors(f file) int { return (len(f.data) + isoSector - 1) / isoSector }

// isoVolume writes one volume's descriptor (ECMA-119 §8.4), path tables (§9.4) and root directory (§9.1).
func isoVolume(at func(int) []byte, descriptor, tables, root, sectors int, volume string, files []file, name isoName) {
	d := at(descriptor)
	copy(d, "\x01CD001\x01")
	for i := 8; i < 72; i++ {
		d[i] = ' '
	}
	if descriptor == isoJoliet {
		d[0] = 2
		copy(d[88:], "%/E") // UCS-2 level 3
		copy(d[8:72], isoUCS2(strings.Repeat(" ", 32)))
	}
	copy(d[40:72], name(volume))
	both32(d[80:], sectors)
	both16(d[120:], 1) // one disk
	both16(d[124:], 1) // of one
	both16(d[128:], isoSector)
	both32(d[132:], 10) // bytes of a path table
	binary.LittleEndian.PutUint32(d[140:], uint32(tables))
	binary.BigEndian.PutUint32(d[148:], uint32(tables+1))
	copy(d[156:], isoRecord([]byte{0}, root, isoSector, isoFlagDir))
	for i := 190; i < 813; i++ { // names of people and files, none; then four dates, none
		d[i] = ' '
	}
	for i := range 4 {
		copy(d[813+17*i:], strings.Repeat("0", 16))
	}
	d[881] = 1

	little, big := at(tables), at(tables+1)
	little[0], big[0] = 1, 1
	binary.LittleEndian.PutUint32(little[2:], uint32(root))
	binary.BigEndian.PutUint32(big[2:], uint32(root))
	little[6], big[7] = 1, 1

	dir := append(isoRecord([]byte{0}, root, isoSector, isoFlagDir), isoRecord([]byte{1}, root, isoSector, isoFlagDir)...)
	sector := isoData
	for _, f := range files {
		dir = append(dir, isoRecord(name(f.name), sector, len(f.data), 0)...)
		sector += isoSectors(f)
	}
	copy(at(root)[:isoSector], dir)
}

// isoRecord is a directory record (ECMA-119 §9.1), without a date.
func isoRecord(name []byte, sector, size int, flags byte) []byte {
	r := make([]byte, (isoRecordHeader+len(name)+1)&^1)
	r[0] = byte(len(r))
	both32(r[2:], sector)
	both32(r[10:], size)
	r[25] = flags
	both16(r[28:], 1)
	r[32] = byte(len(name))
	copy(r[isoRecordHeader:], name)
	return r
}

// isoPlain is the name in the primary volume: upper case with a version, which Linux shows as lower case without. The label
// stays as it is.
func isoPlain(name string) []byte {
	if name == label {
		return []byte(name)
	}
	if !strings.Contains(name, ".") {
		name += "."
	}
	return []byte(strings.ToUpper(name) + ";1")
}

func isoUCS2(name string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(name)) {
		b = binary.BigEndian.AppendUint16(b, unit)
	}
	return b
}

// both32 writes a number in both byte orders, as ECMA-119 §7.3.3 has it.
func both32(b []byte, n int) {
	binary.LittleEndian.PutUint32(b, uint32(n))
	binary.BigEndian.PutUint32(b[4:], uint32(n))
}

// both16 is the same for 16 bits (§7.2.3).
func both16(b []byte, n int) {
	binary.LittleEndian.PutUint16(b, uint16(n))
	binary.BigEndian.PutUint16(b[2:], uint16(n))
}
