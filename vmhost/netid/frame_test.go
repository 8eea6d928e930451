package netid

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
)

// datagram is one UDP datagram with every field free to choose.
type datagram struct {
	srcMAC, dstMAC net.HardwareAddr
	src, dst       netip.Addr
	from, port     uint16 // from is 40000 if zero
	payload        string
	proto          byte   // instead of UDP's
	options        []byte // of IPv4, a multiple of four bytes
}

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
	protoUDP  = 17
)

func (d datagram) frame() []byte {
	udp := d.udp()
	if d.src.Is6() {
		return ethernet(d.dstMAC, d.srcMAC, etherIPv6, d.ipv6(udp))
	}
	return ethernet(d.dstMAC, d.srcMAC, etherIPv4, d.ipv4(udp, 0, 0))
}

// fragments are the datagram in two IPv4 fragments (RFC 791 §3.2); its payload must be longer than
// 16 bytes.
func (d datagram) fragments(id uint16) (first, second []byte) {
	const cut, more = 16, 0x2000
	udp := d.udp()
	first = ethernet(d.dstMAC, d.srcMAC, etherIPv4, d.ipv4(udp[:cut], id, more))
	second = ethernet(d.dstMAC, d.srcMAC, etherIPv4, d.ipv4(udp[cut:], id, cut/8))
	return first, second
}

// udp omits the checksum where IPv4 allows it (RFC 768).
func (d datagram) udp() []byte {
	b := binary.BigEndian.AppendUint16(nil, cmp.Or(d.from, 40000))
	b = binary.BigEndian.AppendUint16(b, d.port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(d.payload)))
	b = binary.BigEndian.AppendUint16(b, 0)
	b = append(b, d.payload...)
	if d.src.Is6() {
		pseudo := append(append(d.src.AsSlice(), d.dst.AsSlice()...), 0, 0, 0, byte(len(b)), 0, 0, 0, protoUDP)
		binary.BigEndian.PutUint16(b[6:], checksum(append(pseudo, b...)))
	}
	return b
}

func (d datagram) ipv4(payload []byte, id, fragment uint16) []byte {
	h := []byte{0x45 + byte(len(d.options)/4), 0}
	h = binary.BigEndian.AppendUint16(h, uint16(20+len(d.options)+len(payload)))
	h = binary.BigEndian.AppendUint16(h, id)
	h = binary.BigEndian.AppendUint16(h, fragment)
	h = append(h, 64, cmp.Or(d.proto, protoUDP), 0, 0)
	h = append(append(append(h, d.src.AsSlice()...), d.dst.AsSlice()...), d.options...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func (d datagram) ipv6(payload []byte) []byte {
	h := []byte{0x60, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(len(payload)))
	h = append(h, protoUDP, 64)
	h = append(append(h, d.src.AsSlice()...), d.dst.AsSlice()...)
	return append(h, payload...)
}

// arp is the claim that ip is at mac, as a request or a reply for target (RFC 826).
func arp(op uint16, mac net.HardwareAddr, ip, target netip.Addr) []byte {
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, mac...), ip.AsSlice()...)
	b = append(append(b, broadcast...), target.AsSlice()...)
	return ethernet(broadcast, mac, etherARP, b)
}

func ethernet(dst, src net.HardwareAddr, kind uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst...), src...)
	return append(binary.BigEndian.AppendUint16(b, kind), payload...)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
