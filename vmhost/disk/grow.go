package disk

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
)

// Signature is the disk signature, "LODG", of the MBR of Lodge's own images. It fixes the PARTUUID
// of their one partition.
const Signature = 0x4c4f4447

// Offsets in the MBR, and the size of a sector, in bytes.
const (
	sectorBytes = 512
	signatureAt = 440
	firstLBAAt  = 446 + 8 // of the first partition
	sectorsAt   = 446 + 12
)

// growPartition returns the writes, as commands of qemu-io(1), that extend the one partition of a
// Lodge image to the end of a disk of this size, or to the 2 TiB that an MBR can address. (The file
// system follows at boot, see x-systemd.growfs in systemd.mount(5).) There are none for other disks.
func growPartition(base string, size int64) ([]string, error) {
	f, err := os.Open(base)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	s := make([]byte, sectorBytes)
	if _, err := f.ReadAt(s, 0); err != nil {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if binary.LittleEndian.Uint32(s[signatureAt:]) != Signature {
		return nil, nil
	}
	end := uint32(min(size/sectorBytes, math.MaxUint32)) //nolint:gosec // it fits
	var writes []string
	for i, b := range binary.LittleEndian.AppendUint32(nil, end-binary.LittleEndian.Uint32(s[firstLBAAt:])) {
		writes = append(writes, fmt.Sprintf("write -q -P %d %d 1", b, sectorsAt+i))
	}
	return writes, nil
}
