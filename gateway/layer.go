package gateway

import "time"

// LayerID names a layer of a disk. It is not used again: a UUID, or the name of an image or a
// template (vmhost/layers).
type LayerID string

// Layer is one file of the disks of VMs. A disk is a chain of layers: QEMU writes to the uppermost
// one, which the VM's record names, and only reads those below.
type Layer struct {
	ID      LayerID
	Parent  LayerID    // the layer below; empty: the file is complete by itself
	VM      ID         // the VM that writes to it, or did; the zero ID for the disk of an image or a template
	File    string     // its path, relative to the state directory; no other layer has it
	Format  DiskFormat // of the file
	Bytes   int64      // the size of the disk as a guest sees it; 0 when it is not known
	State   LayerState
	Created time.Time // to the second
}

// DiskFormat is the format of a disk's file, in the words of QEMU.
type DiskFormat string

// The formats of layers.
const (
	Raw   DiskFormat = "raw"
	QCOW2 DiskFormat = "qcow2"
)

// LayerState is how far a layer is in its life.
type LayerState string

// The states of layers.
const (
	LayerMaking   LayerState = "making"   // recorded before its file: that may be absent, and a VM may write to it already
	LayerReady    LayerState = "ready"    // its file is on disk, synced
	LayerLeft     LayerState = "left"     // as ready; its VM was removed, and it stays for what is over it
	LayerRemoving LayerState = "removing" // recorded before its file is removed, which may be gone
)
