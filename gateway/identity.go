package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
)

// ID is the UUID of a VM (RFC 9562, version 4). All data of a VM is keyed by it, never by the name,
// so a new "blog" never sees the data of an old "blog".
type ID [16]byte

// NewID returns a fresh random ID.
func NewID() ID {
	var id ID
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails (it aborts the program instead)
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID parses the 36-character form that String returns.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, Invalid("not a VM id: %q", s)
	}
	compact := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(compact)); err != nil {
		return ID{}, Invalid("not a VM id: %q", s)
	}
	return id, nil
}

// String returns the canonical lower-case form with dashes.
func (id ID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	*id = parsed
	return err
}

// Identity is the VM at the other end of a connection. It is small and comparable, determined once
// at accept, and passed by value. The zero value is an unknown peer: refuse it.
type Identity struct {
	ID     ID         `json:"id"`
	Number uint32     `json:"number"` // never used again after the VM is removed; the tap and the MAC are computed from it
	Name   string     `json:"name"`   // at the time of accept
	Addr   netip.Addr `json:"addr"`   // the guest's own IPv4 address
}

// Known reports whether vm is a VM, not the zero value.
func (vm Identity) Known() bool { return vm.ID != ID{} }

// Tap returns the name of the VM's network interface on the host: "lg" and 8 hex digits, within the
// kernel's 15 bytes.
func (vm Identity) Tap() string { return fmt.Sprintf("lg%08x", vm.Number) }

// MAC returns the guest's hardware address: QEMU's prefix 52:54, then the VM's number.
func (vm Identity) MAC() net.HardwareAddr {
	n := vm.Number
	return net.HardwareAddr{0x52, 0x54, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}
