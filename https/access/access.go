// Package access decides who may open a page of a VM.
//
// A Visitor, a route, the people and the shares give a Decision, a plain value: the package writes no
// answer and reads no session. It never trusts a header for identity; headers
// only restrict what a browser may do on behalf of another page.
package access

import (
	"net/http"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/https/names"
)

// Visitor is who makes a request: a VM on its tap, a person with a session, or (the zero value) a
// stranger.
type Visitor struct {
	VM        gateway.Identity
	Person    gateway.Principal // 0 for a VM and for a cross-site request
	Mail      string            // the person's address
	Link      gateway.Principal // who made the link that opens the port of the request; 0 without one
	Token     gateway.Principal // who made the token that the request has, for its port; 0 without one
	TokenID   string            // of that
	CrossSite bool              // a browser sends the request for a page of another VM or site
}

// Decision is what happens to a request. The zero value refuses it.
type Decision int

// The decisions.
const (
	DenyStranger  Decision = iota // a person may log in
	DenyVM                        // another VM's page
	DenyCrossSite                 // the person may open it, a page elsewhere may not use it
	FetchLogin                    // a browser without a session at this name; the plain name may have one
	Preflight                     // a browser asks whether another page of the VM may send a request
	Allow
)

// Policy is the rule of one host.
type Policy struct {
	Zone   names.Zone
	VMs    names.VMs
	People *people.Book
}

// Manages reports whether who may do everything with a VM.
func (p Policy) Manages(who Visitor, vm gateway.VM) bool {
	return p.People.Level(who.Person, vm) == gateway.Manage
}

// MayOpen reports whether who may open a port of a VM: public ones are open to anyone, all others to
// the VM itself, and to those whom its grants and shares let in.
func (p Policy) MayOpen(who Visitor, vm gateway.VM, port uint16) bool {
	switch {
	case vm.Visibility(port) == gateway.Public:
		return true
	case who.VM.Known():
		return who.VM.ID == vm.ID
	case who.Token != 0:
		return p.People.MayOpen(who.Token, vm, port)
	case who.Link != 0 && p.linkOpens(who.Link, vm, vm.Share(port)):
		return true
	default:
		return p.People.MayOpen(who.Person, vm, port)
	}
}

// Opens reports whether who may open a route: a port of a VM, or a bucket.
func (p Policy) Opens(who Visitor, rt names.Route) bool {
	if rt.Service != "" {
		return p.BucketLevel(who, rt) != gateway.NoLevel
	}
	return rt.IsVM() && p.MayOpen(who, rt.VM, rt.Port)
}

// BucketLevel is what who may do with the bucket of a route: gateway.View is to list and to read,
// gateway.Use also to write. A VM has what anybody has, with its own buckets too: who makes an app
// in it fetch a URL must not act as the VM.
func (p Policy) BucketLevel(who Visitor, rt names.Route) gateway.Level {
	if !rt.IsVM() || rt.Bucket == "" {
		return gateway.NoLevel
	}
	share := rt.Share()
	if !who.VM.Known() && who.Token == 0 {
		if level := p.People.BucketLevel(who.Person, rt.VM, rt.Bucket); level != gateway.NoLevel {
			return level
		}
		if who.Link != 0 && p.linkOpens(who.Link, rt.VM, share) {
			return gateway.View
		}
	}
	if share.Visibility == gateway.Public {
		return gateway.View
	}
	return gateway.NoLevel
}

// Enters reports whether a person may have a session at a route's name. That at a VM's plain name
// hands over to the others, so it is for everyone who may open one of them; what it opens is
// decided with each request.
func (p Policy) Enters(person gateway.Principal, rt names.Route) bool {
	if rt.Service == "" && rt.Host == rt.Plain {
		if _, ok := p.People.FirstPort(person, rt.VM); ok {
			return true
		}
	}
	return p.Opens(Visitor{Person: person}, rt)
}

// LinkOpens reports whether a link that a person made opens a route: that is shared by link, and
// the person may still share it.
func (p Policy) LinkOpens(by gateway.Principal, rt names.Route) bool {
	return p.linkOpens(by, rt.VM, rt.Share())
}

func (p Policy) linkOpens(by gateway.Principal, vm gateway.VM, share gateway.Share) bool {
	return share.Visibility == gateway.Link && p.People.Level(by, vm) == gateway.Manage
}

// Decide applies the policy to a request for a name of a VM, or for one that no VM has: that is
// decided like a private one. Of r it reads the method and the headers.
func (p Policy) Decide(r *http.Request, rt names.Route, who Visitor) Decision {
	switch {
	case rt.IsVM() && p.Opens(who, rt):
		return Allow
	case who.VM.Known():
		return DenyVM
	case who.CrossSite:
		return DenyCrossSite
	case isPreflight(r) && p.Zone.SameVM(r.Header.Get("Origin"), rt, p.VMs):
		return Preflight
	case rt.Host != rt.Plain && opensPage(r):
		return FetchLogin
	default:
		return DenyStranger
	}
}
