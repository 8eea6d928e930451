package names

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"lodge/gateway"
)

// URL returns the address of a VM's port, as people open it.
func (z Zone) URL(vm string, port uint16) string { return Origin(z.Host(vm, port), z.Port) }

// Host returns the host name of a VM's port; gateway.DefaultPort gives the plain name.
func (z Zone) Host(vm string, port uint16) string {
	host := vm + "." + z.Domain
	if port != gateway.DefaultPort {
		host = strconv.Itoa(int(port)) + "-" + host
	}
	return host
}

// BucketHost returns the host name of a VM's bucket. It needs a service.
func (z Zone) BucketHost(vm, bucket string) string { return bucket + "." + vm + "." + z.Services[0] }

// Origin returns https://host, with the port unless it is 443.
func Origin(host string, port int) string {
	if port != 443 {
		host += ":" + strconv.Itoa(port)
	}
	return "https://" + host
}

// PortSeen returns the port that the client used, which a tunnel can make another one than
// Zone.Port.
func PortSeen(r *http.Request) int {
	_, digits, _ := strings.Cut(r.Host, ":")
	if port, err := gateway.ParsePort(digits); err == nil {
		return int(port)
	}
	return 443
}

// SameVM reports whether a URL is on one of the names of the route's VM, custom domains included. A
// bucket's name counts as that of another VM, but for itself. Names of the guests' domain count
// among themselves: outside the host, they may be anyone's.
func (z Zone) SameVM(from string, rt Route, vms VMs) bool {
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "https" {
		return false
	}
	var inside gateway.Identity
	if rt.Guests {
		inside = rt.VM.Identity
	}
	other, ok := z.Route(u.Host, inside, vms)
	switch {
	case !ok || other.Guests != rt.Guests:
		return false
	case rt.Service != "" || other.Service != "": // each bucket is a site of its own
		return rt.Bucket != "" && other.Host == rt.Host
	case !rt.IsVM(): // a name without a VM looks like a private one
		return rt.VMName != "" && !other.IsVM() && other.VMName == rt.VMName
	}
	return other.VM.ID == rt.VM.ID
}
