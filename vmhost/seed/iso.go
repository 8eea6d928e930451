package seed

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// An ISO 9660 (ECMA-119) file system of one directory, with a Joliet volume (UCS-2 names): all that
// a seed needs. go-diskfs 1.9.4 leaves the last sector short, which a virtio disk cuts off, and
// takes its files from a scratch directory. The first 16 sectors are for boot code, followed by:
const (
	isoSector       = 2048
	isoPrimary      = 16 // volume descriptor with upper-case names
	isoJoliet       = 17 // volume descriptor with the names as they are
	isoTerminator   = 18
	isoPathTables   = 19 // two for each volume: little-endian, big-endian
	isoPrimaryRoot  = 23 // root directories, one sector each: room for some thirty files
	isoJolietRoot   = 24
	isoData         = 25
	isoTableBytes   = 10
	isoFlagDir      = 2
	isoRecordHeader = 33
)

// file is a file in the root directory. Names are lower-case ASCII; files come sorted by name.
type file struct {
	name string
	data []byte
}

// volume is one of the two views of the files.
type volume struct {
	kind       byte // 1 primary, 2 supplementary
	descriptor int  // sectors
	tables     int
	root       int
	blank      []byte              // fills names that are not given
	label      []byte              // at most 32 bytes
	escape     string              // the character set, for a supplementary volume
	name       func(string) []byte // a file's name in the directory's encoding
}

// iso returns the file system.
func iso(label string, files []file) []byte {
	sectors := isoData
	for _, f := range files {
		sectors += isoSectors(f)
	}
	image := make([]byte, sectors*isoSector)
	at := func(sector int) []byte { return image[sector*isoSector : (sector+1)*isoSector] }
	for _, v := range []volume{
		{1, isoPrimary, isoPathTables, isoPrimaryRoot, []byte(" "), []byte(label), "", isoPlain},
		{2, isoJoliet, isoPathTables + 2, isoJolietRoot, isoUCS2(" "), isoUCS2(label), "%/E", isoUCS2},
	} {
		v.describe(at(v.descriptor), sectors)
		v.pathTables(at(v.tables), at(v.tables+1))
		copy(at(v.root), v.directory(files))
	}
	copy(at(isoTerminator), "\xffCD001\x01")
	sector := isoData
	for _, f := range files {
		copy(image[sector*isoSector:], f.data)
		sector += isoSectors(f)
	}
	return image
}

func isoSectors(f file) int { return (len(f.data) + isoSector - 1) / isoSector }

// describe writes the volume descriptor (ECMA-119 §8.4 and §8.5).
func (v volume) describe(d []byte, sectors int) {
	copy(d, "\x00CD001\x01")
	d[0] = v.kind
	copy(d[8:72], bytes.Repeat(v.blank, 64)) // system and volume
	copy(d[40:72], v.label)
	copy(d[88:], v.escape)
	both32(d[80:], sectors)
	both16(d[120:], 1) // one disk
	both16(d[124:], 1) // of one
	both16(d[128:], isoSector)
	both32(d[132:], isoTableBytes)
	binary.LittleEndian.PutUint32(d[140:], uint32(v.tables))
	binary.BigEndian.PutUint32(d[148:], uint32(v.tables+1))
	copy(d[156:], isoRecord([]byte{0}, v.root, isoSector, isoFlagDir))
	copy(d[190:813], bytes.Repeat(v.blank, 623)) // names of people and files: none
	for i := range 4 {                           // dates: none
		copy(d[813+17*i:], strings.Repeat("0", 16))
	}
	d[881] = 1
}

// pathTables writes the two path tables (§9.4), of the root alone.
func (v volume) pathTables(little, big []byte) {
	little[0], big[0] = 1, 1
	binary.LittleEndian.PutUint32(little[2:], uint32(v.root))
	binary.BigEndian.PutUint32(big[2:], uint32(v.root))
	little[6], big[7] = 1, 1
}

// directory makes the root directory: itself, its parent (itself again), the files.
func (v volume) directory(files []file) []byte {
	dir := append(isoRecord([]byte{0}, v.root, isoSector, isoFlagDir), isoRecord([]byte{1}, v.root, isoSector, isoFlagDir)...)
	sector := isoData
	for _, f := range files {
		dir = append(dir, isoRecord(v.name(f.name), sector, len(f.data), 0)...)
		sector += isoSectors(f)
	}
	return dir
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

// isoPlain is a name in the primary volume: upper case with a version. Linux shows it in lower case
// without the version.
func isoPlain(name string) []byte {
	if !strings.Contains(name, ".") {
		name += "."
	}
	return []byte(strings.ToUpper(name) + ";1")
}

// isoUCS2 is a name in Joliet, in big-endian UCS-2.
func isoUCS2(name string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(name)) {
		b = binary.BigEndian.AppendUint16(b, unit)
	}
	return b
}

// both32 writes a number in both byte orders (ECMA-119 §7.3.3).
func both32(b []byte, n int) {
	binary.LittleEndian.PutUint32(b, uint32(n))
	binary.BigEndian.PutUint32(b[4:], uint32(n))
}

// both16 is the same for 16 bits (§7.2.3).
func both16(b []byte, n int) {
	binary.LittleEndian.PutUint16(b, uint16(n))
	binary.BigEndian.PutUint16(b[2:], uint16(n))
}
