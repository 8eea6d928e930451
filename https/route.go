package https

import (
	"net/http"
	"strings"

	"lodge/gateway"
)

// route is what a host name stands for: a port of a VM, a name for guests, or (neither) the host's own page.
type route struct {
	host    string       // the name itself, lower case, without a port
	subject string       // whose certificate serves it
	vm      gateway.VM   // known for a VM's name
	port    uint16       // of the VM; DefaultPort for the plain name and the names below it
	inside  http.Handler // for a name of Config.Inside
}

// isVM reports whether the name is a VM's.
func (rt route) isVM() bool { return rt.vm.Known() }

// route says what a host name means to from, who is the zero VM outside. False: there is no such name here.
// The port behind a colon does not matter: the listener may be reached through any other.
func (s *Server) route(host string, from gateway.Identity) (route, bool) {
	host, ok := normalHost(host)
	if !ok {
		return route{}, false
	}
	if host == s.Domain {
		return route{host: host, subject: host}, true
	}
	if labels, ok := strings.CutSuffix(host, "."+s.Domain); ok {
		return s.routeVM(host, labels)
	}
	if from.Known() {
		return s.routeInside(host)
	}
	return route{}, false
}

// routeVM reads <vm>, <port>-<vm> or <any>.<vm>.
func (s *Server) routeVM(host, labels string) (route, bool) {
	subject := s.Domain // the certificate of the domain covers the names directly below it, those with a port among them
	label := labels
	if below, vm, deeper := strings.Cut(labels, "."); deeper {
		if below == "" || gateway.CheckName(vm) != nil { // CheckName refuses a further dot
			return route{}, false
		}
		label = vm
	}
	name, port, err := gateway.SplitHost(label)
	if err != nil {
		return route{}, false
	}
	m, ok := s.Directory.ByName(name)
	if !ok {
		return route{}, false
	}
	if port == gateway.DefaultPort {
		subject = name + "." + s.Domain
	}
	return route{host: host, subject: subject, vm: m, port: port}, true
}

func (s *Server) routeInside(host string) (route, bool) {
	subject := host
	handler, ok := s.Inside[subject]
	if !ok {
		_, subject, _ = strings.Cut(host, ".")
		handler, ok = s.Inside[subject]
	}
	return route{host: host, subject: subject, inside: handler}, ok
}

// hasLeaf says whether there is a certificate of this very name.
func (s *Server) hasLeaf(subject string) bool {
	if _, ok := s.Inside[subject]; ok || subject == s.Domain {
		return true
	}
	name, ok := strings.CutSuffix(subject, "."+s.Domain)
	if !ok {
		return false
	}
	_, ok = s.Directory.ByName(name)
	return ok
}

// normalHost brings a Host header or SNI to lower case, without its port and without the final dot. False: it is not
// the name of a host.
func normalHost(host string) (string, bool) {
	host, port, _ := strings.Cut(host, ":")
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 || strings.Trim(port, "0123456789") != "" { // RFC 1035 §2.3.4, RFC 9110 §7.2
		return "", false
	}
	for _, c := range []byte(host) { // before lower case, which would turn some letters beyond ASCII into ours
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", false
		}
	}
	return strings.ToLower(host), true
}
