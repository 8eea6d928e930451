package api

import (
	"context"
	"log/slog"

	"lodge/gateway"
	"lodge/gateway/people"
)

// Caller is who uses the API: a person or a VM. The zero Caller may do nothing.
type Caller struct {
	owner  bool
	vm     gateway.ID
	person gateway.Principal
}

// Owner is the caller that owns the host. The face that names it has proved that, such as by the uid of a process.
func Owner() Caller { return Caller{owner: true} }

// PersonCaller is a person who has proved that, such as by a session. What they may do is looked up at each
// call: somebody who was removed may do nothing.
func PersonCaller(id gateway.Principal) Caller { return Caller{person: id} }

// VMCaller is the VM at the other end of a connection (gateway.IdentityOf). An unknown one may do nothing.
func VMCaller(vm gateway.Identity) Caller { return Caller{vm: vm.ID} }

// verb names a verb where Session.may decides. The names are those of Session's methods, in lower case.
type verb string

const (
	verbHealth           verb = "health"
	verbRootPEM          verb = "rootpem"
	verbDoctor           verb = "doctor"
	verbList             verb = "list"
	verbShow             verb = "show"
	verbNew              verb = "new"
	verbStart            verb = "start"
	verbStop             verb = "stop"
	verbRestart          verb = "restart"
	verbRemove           verb = "remove"
	verbWait             verb = "wait"
	verbConsole          verb = "console"
	verbLog              verb = "log"
	verbSSH              verb = "ssh"
	verbDiff             verb = "diff"
	verbRecipe           verb = "recipe"
	verbHistory          verb = "history"
	verbCheckpoint       verb = "checkpoint"
	verbCheckpointList   verb = "checkpointlist"
	verbRemoveCheckpoint verb = "removecheckpoint"
	verbCheckpointPlan   verb = "setcheckpointplan"
	verbRollback         verb = "rollback"
	verbFork             verb = "fork"
	verbShare            verb = "share"
	verbSet              verb = "set"
	verbLogin            verb = "login"
	verbLoginHost        verb = "loginhost"
	verbCredentials      verb = "credentials"
	verbS3Usage          verb = "s3usage"
	verbNewS3Key         verb = "news3key"
	verbRevokeS3Keys     verb = "revokes3keys"
	verbSetS3Quota       verb = "sets3quota"
	verbCheckObjects     verb = "checkobjects"
	verbCheckVMObjects   verb = "checkvmobjects"
	verbGrantBucket      verb = "grantbucket"
	verbBucketGrants     verb = "bucketgrants"
	verbMail             verb = "mail"
	verbMessage          verb = "message"
	verbRemoveMail       verb = "removemail"
	verbMailDNS          verb = "maildns"
	verbSearchMail       verb = "searchmail"
	verbMailLog          verb = "maillog"
	verbRedeliver        verb = "redeliver"
	verbMailQueue        verb = "mailqueue"
	verbChangeQueue      verb = "changemailqueue"
	verbMailSettings     verb = "mailsettings"
	verbSetMail          verb = "setmail"
	verbNewAddress       verb = "newmailaddress"
	verbAddresses        verb = "mailaddresses"
	verbRemoveAddress    verb = "removemailaddress"
	verbNewPassword      verb = "newmailpassword"
	verbPasswords        verb = "mailpasswords"
	verbRemovePassword   verb = "removemailpassword"
	verbImages           verb = "images"
	verbBuildImage       verb = "buildimage"
	verbRemoveTemplate   verb = "removetemplate"
	verbForwards         verb = "forwards"
	verbForward          verb = "forward"
	verbRemoveForward    verb = "removeforward"
	verbAddDomain        verb = "adddomain"
	verbRemoveDomain     verb = "removedomain"
	verbDomains          verb = "domains"
	verbPeople           verb = "people"
	verbAddPerson        verb = "addperson"
	verbRemovePerson     verb = "removeperson"
	verbPersonLink       verb = "personlink"
	verbTeams            verb = "teams"
	verbChangeTeam       verb = "changeteam"
	verbRemoveTeam       verb = "removeteam"
	verbGrant            verb = "grant"
	verbAccess           verb = "access"
	verbNewPass          verb = "newpass"
	verbListPasses       verb = "listpasses"
	verbRemovePass       verb = "removepass"
	verbRequests         verb = "requests"
	verbApprove          verb = "approve"
	verbDeny             verb = "deny"
)

// least is the level on a VM that a person needs for a verb. A verb that is not here is for owners.
func (v verb) least() (gateway.Level, bool) {
	switch v {
	case verbShow, verbWait, verbConsole, verbLog, verbSSH, verbDiff, verbHistory, verbRecipe, verbCredentials, verbS3Usage, verbNewS3Key, verbMail, verbMessage,
		verbSearchMail, verbMailLog, verbMailQueue:
		return gateway.Use, true
	case verbStart, verbStop, verbRestart, verbRemove, verbSet, verbShare, verbGrant, verbAccess, verbNewPass, verbListPasses,
		verbRemovePass, verbLogin, verbAddDomain, verbRemoveDomain, verbDomains, verbApprove, verbDeny,
		verbRemoveMail, verbRedeliver, verbChangeQueue, verbMailSettings, verbSetMail, verbNewAddress, verbAddresses, verbRemoveAddress,
		verbNewPassword, verbPasswords, verbRemovePassword, verbMailDNS,
		verbCheckpoint, verbCheckpointList, verbRemoveCheckpoint, verbCheckpointPlan, verbRollback, verbFork, verbSetS3Quota, verbRevokeS3Keys, verbGrantBucket, verbBucketGrants, verbCheckVMObjects:
		return gateway.Manage, true
	}
	return gateway.NoLevel, false
}

// may decides whether the caller may use v on a VM, or on the host itself where m is zero. What is not
// listed is denied.
func (s Session) may(v verb, m gateway.VM) bool {
	switch {
	case s.owns():
		return true
	case s.caller.vm != gateway.ID{}:
		return s.caller.vm == m.ID && vmMay(v, m)
	case s.caller.person != 0:
		return s.personMay(v, m)
	}
	return false
}

// vmMay decides what a VM may ask of itself.
func vmMay(v verb, m gateway.VM) bool {
	switch v {
	case verbShow, verbCheckpoint, verbCheckpointList, verbRemoveCheckpoint:
		return true
	case verbRollback:
		return m.RollbackInside
	}
	return false
}

func (s Session) personMay(v verb, m gateway.VM) bool {
	p, known := s.api.People.Person(s.caller.person)
	switch {
	case !known:
		return false
	case v == verbList, v == verbRequests: // of what they may open, or answer
		return true
	case v == verbNew:
		return p.Role == people.Member
	}
	least, ok := v.least()
	return ok && m.Known() && s.api.People.Level(p.ID, m).Covers(least)
}

// owns reports whether the caller is an owner of the host.
func (s Session) owns() bool {
	return s.caller.owner || s.caller.person != 0 && s.api.People.IsOwner(s.caller.person)
}

// person is who calls: of the host's own socket, its owner.
func (s Session) person() people.Person {
	if s.caller.owner {
		return s.api.People.Owner()
	}
	p, _ := s.api.People.Person(s.caller.person)
	return p
}

// audit records what the caller did.
func (s Session) audit(ctx context.Context, event gateway.AuditEvent, attrs ...slog.Attr) {
	gateway.Audit(ctx, s.api.Logger, event, append(attrs, slog.String("by", s.person().Mail))...)
}

func errDenied(v verb) error {
	return gateway.Errorf(gateway.KindDenied, "not allowed: %s", v).WithHint("Ask the owner of this host.")
}
