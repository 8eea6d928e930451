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

// growPartition extends the one partition of a Lodge image to the end of the disk, or to the 2 TiB
// that an MBR can address. (The file system follows at boot, see x-systemd.growfs in
// systemd.mount(5).) It does not change any other disk.
func growPartition(disk *os.File, size int64) error {
	s := make([]byte, sectorBytes)
	if _, err := disk.ReadAt(s, 0); err != nil {
		return fmt.Errorf("read partition table: %w", err)
	}
	if binary.LittleEndian.Uint32(s[signatureAt:]) != Signature {
		return nil
	}
	end := uint32(min(size/sectorBytes, math.MaxUint32)) //nolint:gosec // it fits
	sectors := binary.LittleEndian.AppendUint32(nil, end-binary.LittleEndian.Uint32(s[firstLBAAt:]))
	if _, err := disk.WriteAt(sectors, sectorsAt); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	return nil
}
