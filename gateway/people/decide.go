package people

import (
	"slices"
	"strings"

	"lodge/gateway"
)

// IsOwner reports whether a person may do everything on the host.
func (b *Book) IsOwner(who gateway.Principal) bool {
	p, ok := b.Person(who)
	return ok && p.Role == Owner
}

// Level returns what a person may do with a VM: owners may manage each, others what the VM's grants
// give to them and to their teams. It is NoLevel for who is removed.
func (b *Book) Level(who gateway.Principal, vm gateway.VM) gateway.Level {
	s := b.now.Load()
	p, ok := s.person(who)
	if !ok {
		return gateway.NoLevel
	}
	return s.level(p, vm)
}

func (s *snapshot) level(p Person, vm gateway.VM) gateway.Level {
	if p.Role == Owner {
		return gateway.Manage
	}
	best := gateway.NoLevel
	for _, g := range vm.Grants {
		if !best.Covers(g.Level) && s.is(p.ID, g.To) {
			best = g.Level
		}
	}
	return best
}

// MayOpen reports whether a person may open a port of a VM: who has a level on the VM may open all of
// them, others those that are shared with them. It does not know that public ports are open to anyone.
func (b *Book) MayOpen(who gateway.Principal, vm gateway.VM, port uint16) bool {
	s := b.now.Load()
	p, ok := s.person(who)
	return ok && (s.level(p, vm) != gateway.NoLevel || s.admits(p, vm.Share(port)))
}

// BucketLevel returns what a person may do with a bucket of a VM: who may use the VM lists, reads
// and writes (gateway.Use), with whom it is shared lists and reads (gateway.View). It does not know
// that public ones are open to anyone.
func (b *Book) BucketLevel(who gateway.Principal, vm gateway.VM, bucket string) gateway.Level {
	s := b.now.Load()
	p, ok := s.person(who)
	switch {
	case ok && s.level(p, vm).Covers(gateway.Use):
		return gateway.Use
	case ok && s.admits(p, vm.S3.Share(bucket)):
		return gateway.View
	}
	return gateway.NoLevel
}

// FirstPort returns the first port of a VM that a person may open, of the plain name and of those that
// are shared. It is false when there is none.
func (b *Book) FirstPort(who gateway.Principal, vm gateway.VM) (uint16, bool) {
	s := b.now.Load()
	p, ok := s.person(who)
	if !ok {
		return 0, false
	}
	if s.level(p, vm) != gateway.NoLevel || s.admits(p, vm.Share(gateway.DefaultPort)) {
		return gateway.DefaultPort, true
	}
	for _, share := range vm.Shares {
		if s.admits(p, share) {
			return share.Port, true
		}
	}
	return 0, false
}

// admits reports whether a share is for a person.
func (s *snapshot) admits(p Person, share gateway.Share) bool {
	switch share.Visibility {
	case gateway.People, gateway.Team, gateway.Link:
	default:
		return false
	}
	for _, to := range share.With {
		if s.is(p.ID, to) {
			return true
		}
	}
	if len(share.Domains) == 0 {
		return false
	}
	return slices.Contains(share.Domains, p.Mail[strings.LastIndexByte(p.Mail, '@')+1:])
}

// is reports whether a person is a principal, or a member of it.
func (s *snapshot) is(person, to gateway.Principal) bool {
	if person == to {
		return true
	}
	i, ok := s.team(to)
	if !ok {
		return false
	}
	_, ok = slices.BinarySearch(s.teams[i].Members, person)
	return ok
}
