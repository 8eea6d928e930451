package gateway

import (
	"fmt"
	"net/netip"
	"strings"
)

// Protocol is that of a forwarded port.
type Protocol string

// The protocols.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// HostPort is a port of the host. It leads to one VM at most, on whichever addresses.
type HostPort struct {
	Protocol Protocol `json:"protocol"` // "tcp" or "udp"
	Port     uint16   `json:"host_port"`
}

// String returns the form that ParseHostPort reads.
func (p HostPort) String() string { return fmt.Sprintf("%d/%s", p.Port, p.Protocol) }

// Check fails with KindInvalid unless p is a port of a protocol.
func (p HostPort) Check() error {
	if p.Port == 0 || p.Protocol != TCP && p.Protocol != UDP {
		return Invalid("not a port of a protocol: %q", p.String()).WithHint("Examples: 2222/tcp, 5353/udp")
	}
	return nil
}

// Forward leads a port of the host to a port of a VM.
type Forward struct {
	HostPort
	Addr   netip.Addr `json:"addr,omitzero"` // of the host; zero: each address of the setting listen
	VM     ID         `json:"vm"`
	VMPort uint16     `json:"vm_port"`
}

// Check fails with KindInvalid unless f can be forwarded on some host.
func (f Forward) Check() error {
	if err := f.HostPort.Check(); err != nil {
		return err
	}
	switch {
	case f.VMPort == 0:
		return Invalid("the VM's port is missing").WithHint("Example: 2222:22/tcp")
	case !f.Addr.IsValid():
		return nil
	case f.Addr.Is4In6() || f.Addr.Zone() != "" || f.Addr.IsUnspecified() || f.Addr.IsMulticast() || f.Addr == LinkLocal || f.Addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return Invalid("%s is not an address of the host", f.Addr).WithHint("Name one of the host's addresses; ip -brief address lists them.")
	}
	return nil
}

// ForwardStatus is a Forward with what has become of it.
type ForwardStatus struct {
	Forward
	Addrs []netip.Addr // where it listens, or should
	Err   error        // why one of them does not listen; nil: all do
}

// ParseHostPort reads "2222/tcp".
func ParseHostPort(s string) (HostPort, error) {
	digits, protocol, _ := strings.Cut(s, "/")
	port, err := ParsePort(digits)
	p := HostPort{Protocol(protocol), port}
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return HostPort{}, Invalid("not a port of a protocol: %q", s).WithHint("Examples: 2222/tcp, 5353/udp")
	}
	return p, nil
}

// ParseForward reads "[ADDRESS:]HOSTPORT:VMPORT/PROTOCOL", such as "2222:22/tcp" or
// "[::1]:5353:53/udp". The VM is left to the caller.
func ParseForward(s string) (Forward, error) {
	invalid := Invalid("not a forward: %q", s).WithHint("Examples: 2222:22/tcp, 5353:53/udp, 192.0.2.1:2222:22/tcp, [2001:db8::1]:2222:22/tcp")
	ports, protocol, _ := strings.Cut(s, "/")
	rest, vmDigits, _ := cutLast(ports)
	address, hostDigits, hasAddress := cutLast(rest)
	vmPort, vmErr := ParsePort(vmDigits)
	hostPort, hostErr := ParsePort(hostDigits)
	f := Forward{HostPort: HostPort{Protocol(protocol), hostPort}, VMPort: vmPort}
	if vmErr != nil || hostErr != nil || f.HostPort.Check() != nil {
		return Forward{}, invalid
	}
	if !hasAddress {
		return f, nil
	}
	inner, bracketed := strings.CutPrefix(address, "[")
	if bracketed && !strings.HasSuffix(inner, "]") {
		return Forward{}, invalid
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
	if err != nil || bracketed != addr.Is6() || addr.Is4In6() || addr.Zone() != "" {
		return Forward{}, invalid
	}
	f.Addr = addr
	return f, f.Check()
}

// cutLast cuts s around its last colon. Without one, all of s is behind it.
func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndex(s, ":")
	return s[:max(i, 0)], s[i+1:], i >= 0
}
