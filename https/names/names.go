// Package names maps the host names of the web side to routes: a port of a VM, a name for guests
// only, or the host's own page.
//
// Parse reads a name without a lookup. Route adds the VM that has the name now, or has it as a custom
// domain, with one lookup, so everything about a request follows from one snapshot of the Directory.
// The package never resolves a name in DNS and never decides who may open it.
package names

import (
	"slices"
	"strings"

	"lodge/gateway"
)

// Zone is the set of names that the host serves.
type Zone struct {
	Domain string   // VMs are at <vm>.<Domain>; also the name of the host's own page
	Guests string   // VMs are at <vm>.<Guests> too, for guests only
	Port   int      // the port that people reach; it is part of URLs unless it is 443
	Inside []string // names for guests only, each with the names directly below it

	// Services are names below Domain of services of the host, each with all names below it.
	// <bucket>.<vm>.<service> is the name of a VM's bucket, which people log in to.
	Services []string
}

// Name is a host name that was read but not looked up. It is a VM's name, or one of Zone.Inside or
// Zone.Services, or (none of these) one of the two domains.
type Name struct {
	Host    string // lower case, without a port or a final dot
	Subject string // the name whose certificate covers Host
	VMName  string // for every name below a domain: the VM's that has it, if there is one
	Plain   string // for a VM's name: the VM's plain name in the same domain, where people log in
	Port    uint16 // of the VM; DefaultPort for the plain name and the names below it
	Guests  bool   // only guests may use the name
	Inside  string // for a service of the host: the element of Zone.Inside
	Service string // for one that is not for guests alone: the element of Zone.Services
	Bucket  string // with Service: what is before the VM's name; Plain is Host then, since each bucket has one name
	Deep    bool   // for a VM's name: two labels or more below the plain one, so Subject is one of any number
}

// Route is a Name with the VM that has it now.
type Route struct {
	Name
	VM     gateway.VM // known if a VM has the name
	Custom bool       // Host is a custom domain of the VM
}

// IsVM reports whether a VM has the name.
func (rt *Route) IsVM() bool { return rt.VM.Known() }

// Share is that of the route's bucket or, without one, of its port.
func (rt *Route) Share() gateway.Share { return rt.VM.ShareOf(rt.Bucket, rt.Port) }

// VMs finds the VM that has a name or a custom domain now. gateway.Directory is one.
type VMs interface {
	ByName(name string) (gateway.VM, bool)
	ByDomain(host string) (gateway.VM, gateway.Domain, bool)
}

// Route returns the route of host for a connection from a VM, or from outside (the zero Identity).
// It is false for a name that is not the host's there.
func (z Zone) Route(host string, from gateway.Identity, vms VMs) (Route, bool) {
	name, ok := z.Parse(host)
	switch {
	case !ok:
		return z.routeDomain(host, vms)
	case name.Guests && !from.Known():
		return Route{}, false
	case name.VMName == "":
		return Route{Name: name}, true
	}
	vm, ok := vms.ByName(name.VMName)
	return Route{Name: name, VM: vm}, ok || !name.Guests
}

// routeDomain returns the route of a custom domain whose TLS ends here. None leads to a name of the
// zone, also after the host's domain was changed.
func (z Zone) routeDomain(host string, vms VMs) (Route, bool) {
	host, ok := z.Outside(host)
	if !ok {
		return Route{}, false
	}
	vm, domain, ok := vms.ByDomain(host)
	if !ok || domain.Passthrough {
		return Route{}, false
	}
	name := Name{Host: host, Subject: host, VMName: vm.Name, Plain: vm.Name + "." + z.Domain, Port: domain.Port}
	return Route{Name: name, VM: vm, Custom: true}, true
}

// Outside returns a host name as a custom domain has it. It is false for the zone's own names.
func (z Zone) Outside(host string) (string, bool) {
	host, ok := Normalize(host)
	return host, ok && !strings.HasSuffix("."+host, "."+z.Domain) && !strings.HasSuffix("."+host, "."+z.Guests)
}

// Parse reads a host name from a Host header, an SNI or a URL. It is false for a name outside the
// zone. A port behind a colon is ignored: a tunnel may lead to the listener through any other.
func (z Zone) Parse(host string) (Name, bool) {
	host, ok := Normalize(host)
	if !ok {
		return Name{}, false
	}
	if name, ok := z.parseInside(host); ok {
		return name, true
	}
	if name, ok := z.parseService(host); ok {
		return name, true
	}
	if name, ok := parseBelow(host, z.Domain); ok {
		return name, true
	}
	if name, ok := unknown(host, z.Domain); ok {
		return name, true
	}
	name, ok := parseBelow(host, z.Guests)
	name.Guests = true
	return name, ok
}

// parseBelow reads a domain or a VM's name below it: <vm>, <port>-<vm>, <any>.<vm> and names further
// below.
func parseBelow(host, domain string) (Name, bool) {
	if host == domain {
		return Name{Host: host, Subject: host}, true
	}
	name, ok := unknown(host, domain)
	if !ok {
		return Name{}, false
	}
	label := name.VMName[strings.LastIndexByte(name.VMName, '.')+1:]
	vm, port, err := gateway.SplitHost(label)
	if err != nil || label != name.VMName && port != gateway.DefaultPort { // the latter is below <port>-<vm>
		return Name{}, false
	}
	name.VMName, name.Plain, name.Port = vm, vm+"."+domain, port
	return name, true
}

// unknown reads a name below the domain as the plain name of a VM that cannot exist. The certificate
// does not depend on what exists: that of the domain covers the names directly below it, that of the
// parent the names below those.
func unknown(host, domain string) (Name, bool) {
	labels, below := strings.CutSuffix(host, "."+domain)
	name := Name{Host: host, Subject: domain, VMName: labels, Plain: host}
	switch depth := strings.Count(labels, "."); {
	case depth == 1:
		_, name.Subject, _ = strings.Cut(host, ".")
	case depth > 1: // a wildcard stands for one label
		name.Subject, name.Deep = host, true
	}
	return name, below
}

func (z Zone) parseInside(host string) (Name, bool) {
	name := host
	if !slices.Contains(z.Inside, name) {
		_, name, _ = strings.Cut(host, ".")
	}
	if !slices.Contains(z.Inside, name) {
		return Name{}, false
	}
	return Name{Host: host, Subject: name, Guests: true, Inside: name}, true
}

// parseService reads a name of Zone.Services. It has no VM, so that no page there counts as one of
// a VM (see SameVM), but for that of a bucket, which is a site of its own.
func (z Zone) parseService(host string) (Name, bool) {
	for _, service := range z.Services {
		if host != service && !strings.HasSuffix(host, "."+service) {
			continue
		}
		below, ok := unknown(host, z.Domain)
		name := Name{Host: host, Subject: below.Subject, Deep: below.Deep, Service: service}
		labels := strings.TrimSuffix(strings.TrimSuffix(host, service), ".")
		if i := strings.LastIndexByte(labels, '.'); i > 0 {
			name.Bucket, name.VMName, name.Plain = labels[:i], labels[i+1:], host
		}
		return name, ok
	}
	return Name{}, false
}

// Normalize returns a host name in lower case, without its port and without the final dot. It is
// false for what is not a host name.
func Normalize(host string) (string, bool) {
	host, port, _ := strings.Cut(host, ":")
	host = strings.TrimSuffix(host, ".")
	// RFC 1035 §2.3.4, RFC 9110 §7.2
	if len(host) > 253 || strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
	}
	for _, c := range []byte(host) { // before lower case, which maps some letters beyond ASCII to ASCII
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", false
		}
	}
	return strings.ToLower(host), true
}
