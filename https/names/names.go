// Package names maps the host names of the web side to routes: a port of a VM, a name for guests
// only, or the host's own page.
//
// Parse reads a name without a lookup. Route adds the VM that has the name now, with one lookup, so
// everything about a request follows from one snapshot of the Directory. The package never resolves
// a name in DNS and never decides who may open it.
package names

import (
	"slices"
	"strings"

	"lodge/gateway"
)

// Zone is the set of names that the host serves.
type Zone struct {
	Domain string   // VMs are at <vm>.<Domain>; also the name of the host's own page
	Port   int      // the port that people reach; it is part of URLs unless it is 443
	Inside []string // names for guests only, each with the names directly below it
}

// Name is a host name that was read but not looked up. It is a VM's name, or one of Zone.Inside, or
// (neither) the domain.
type Name struct {
	Host    string // lower case, without a port or a final dot
	Subject string // the name whose certificate covers Host
	VMName  string // for a VM's name
	Plain   string // for a VM's name: the VM's plain name, where people log in
	Port    uint16 // of the VM; DefaultPort for the plain name and the names below it
	Inside  string // for guests' names: the element of Zone.Inside
}

// Route is a Name with the VM that has it now.
type Route struct {
	Name
	VM gateway.VM // known for a VM's name
}

// IsVM reports whether the name is a VM's.
func (rt Route) IsVM() bool { return rt.VM.Known() }

// VMs finds the VM that has a name now. gateway.Directory is one.
type VMs interface {
	ByName(name string) (gateway.VM, bool)
}

// Route returns the route of host for a connection from a VM, or from outside (the zero Identity).
// It is false for a name that does not exist there.
func (z Zone) Route(host string, from gateway.Identity, vms VMs) (Route, bool) {
	name, ok := z.Parse(host)
	if !ok || name.Inside != "" && !from.Known() {
		return Route{}, false
	}
	if name.VMName == "" {
		return Route{Name: name}, true
	}
	vm, ok := vms.ByName(name.VMName)
	return Route{Name: name, VM: vm}, ok
}

// Parse reads a host name from a Host header, an SNI or a URL. It is false for a name outside the
// zone. A port behind a colon is ignored: a tunnel may lead to the listener through any other.
func (z Zone) Parse(host string) (Name, bool) {
	host, ok := normalize(host)
	if !ok {
		return Name{}, false
	}
	if host == z.Domain {
		return Name{Host: host, Subject: host}, true
	}
	if labels, ok := strings.CutSuffix(host, "."+z.Domain); ok {
		return z.parseVM(host, labels)
	}
	return z.parseInside(host)
}

// parseVM reads <vm>, <port>-<vm> or <any>.<vm>.
func (z Zone) parseVM(host, labels string) (Name, bool) {
	label := labels
	if below, vm, deeper := strings.Cut(labels, "."); deeper {
		if below == "" || gateway.CheckName(vm) != nil { // CheckName refuses a further dot
			return Name{}, false
		}
		label = vm
	}
	vm, port, err := gateway.SplitHost(label)
	if err != nil {
		return Name{}, false
	}
	plain := vm + "." + z.Domain
	subject := plain
	if port != gateway.DefaultPort {
		subject = z.Domain // its certificate covers the names directly below it
	}
	return Name{Host: host, Subject: subject, VMName: vm, Plain: plain, Port: port}, true
}

func (z Zone) parseInside(host string) (Name, bool) {
	name := host
	if !slices.Contains(z.Inside, name) {
		_, name, _ = strings.Cut(host, ".")
	}
	if !slices.Contains(z.Inside, name) {
		return Name{}, false
	}
	return Name{Host: host, Subject: name, Inside: name}, true
}

// normalize returns a host name in lower case, without its port and without the final dot. It is
// false for what is not a host name.
func normalize(host string) (string, bool) {
	host, port, _ := strings.Cut(host, ":")
	host = strings.TrimSuffix(host, ".")
	// RFC 1035 §2.3.4, RFC 9110 §7.2
	if host == "" || len(host) > 253 || strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	for _, c := range []byte(host) { // before lower case, which maps some letters beyond ASCII to ASCII
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", false
		}
	}
	return strings.ToLower(host), true
}
