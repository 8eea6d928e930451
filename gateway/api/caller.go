package api

import "lodge/gateway"

// Caller is who uses the API: a person or a VM. The zero Caller may do nothing.
type Caller struct {
	owner bool
	vm    gateway.ID
}

// Owner is the caller that owns the host. The face that names it has proved that, such as by the uid of a process.
func Owner() Caller { return Caller{owner: true} }

// VMCaller is the VM at the other end of a connection (gateway.IdentityOf). An unknown one may do nothing.
func VMCaller(vm gateway.Identity) Caller { return Caller{vm: vm.ID} }

// verb names a verb where Caller.may decides. The names are those of Session's methods, in lower case.
type verb string

const (
	verbHealth         verb = "health"
	verbRootPEM        verb = "rootpem"
	verbDoctor         verb = "doctor"
	verbList           verb = "list"
	verbShow           verb = "show"
	verbNew            verb = "new"
	verbStart          verb = "start"
	verbStop           verb = "stop"
	verbRestart        verb = "restart"
	verbRemove         verb = "remove"
	verbWait           verb = "wait"
	verbConsole        verb = "console"
	verbLog            verb = "log"
	verbSSH            verb = "ssh"
	verbShare          verb = "share"
	verbSet            verb = "set"
	verbLogin          verb = "login"
	verbCredentials    verb = "credentials"
	verbMail           verb = "mail"
	verbMessage        verb = "message"
	verbImages         verb = "images"
	verbBuildImage     verb = "buildimage"
	verbRemoveTemplate verb = "removetemplate"
	verbForwards       verb = "forwards"
	verbForward        verb = "forward"
	verbRemoveForward  verb = "removeforward"
	verbAddDomain      verb = "adddomain"
	verbRemoveDomain   verb = "removedomain"
	verbDomains        verb = "domains"
)

// may decides whether c may use v on a VM, or on the host itself where id is zero. What is not listed is denied.
func (c Caller) may(v verb, id gateway.ID) bool {
	switch {
	case c.owner:
		return true
	case c.vm != gateway.ID{} && c.vm == id:
		return v == verbShow
	}
	return false
}

func errDenied(v verb) error {
	return gateway.Errorf(gateway.KindDenied, "not allowed: %s", v).WithHint("Ask the owner of this host.")
}
