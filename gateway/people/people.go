// Package people has the people and the teams that Lodge knows, and decides what they may do with a VM.
//
// A Book is read from gateway.Shared when it is opened, and kept in memory as one immutable snapshot:
// decisions take no lock and allocate nothing. What a person may do follows from three things: the
// role on the host, the grants of the VM, and the shares of its ports. The latter two are part of the
// VM's record (gateway.VM), and end with it.
//
// The package never logs anyone in, and never reads a request.
package people

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
)

// Limits of a Book.
const (
	MaxPeople = 10_000
	MaxGuests = 9_000 // of people in all, after which owners alone may add some (package api)
	MaxTeams  = 1_000
)

// Role is what a person is on the host.
type Role string

// The roles.
const (
	Owner  Role = "owner"  // may do everything
	Member Role = "member" // may also make VMs, which they then manage
	Guest  Role = "guest"  // may do what they were granted, and open what is shared with them
)

// ParseRole reads a role.
func ParseRole(text string) (Role, error) {
	switch r := Role(text); r {
	case Owner, Member, Guest:
		return r, nil
	}
	return "", gateway.Invalid("not a role: %q", text).WithHint("Choose owner, member or guest.")
}

// Person is somebody with a mail address. The ID is never used again: who is removed and added again
// is another person, without any of the earlier rights, sessions and tokens.
type Person struct {
	ID    gateway.Principal `json:"-"` // in the key
	Mail  string            `json:"mail"`
	Role  Role              `json:"role"`
	Added time.Time         `json:"added"`
}

// Team is a set of people. The name is free again after its removal, the ID is not.
type Team struct {
	ID      gateway.Principal   `json:"-"` // in the key
	Name    string              `json:"name"`
	Members []gateway.Principal `json:"members"` // in order, without those who are removed
}

// Book has the people and the teams. Each write is on disk before it is visible, and ignores
// cancellation. It is safe for concurrent use.
type Book struct {
	shared gateway.Shared
	owner  string     // mail address
	write  sync.Mutex // one writer; also guards watch
	now    atomic.Pointer[snapshot]
	watch  []func()
}

// snapshot is never changed. Both lists are ordered by ID.
type snapshot struct {
	owner  gateway.Principal // of the configuration
	people []Person
	teams  []Team
}

// Open reads the Book. The owner of the configuration is always in it; one that it had before has
// the stored role, member unless it was set.
func Open(ctx context.Context, shared gateway.Shared, owner string) (*Book, error) {
	owner, err := ParseAddress(owner)
	if err != nil {
		return nil, err
	}
	b := &Book{shared: shared, owner: owner}
	b.now.Store(&snapshot{})
	if err := b.read(ctx); err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	if b.now.Load().owner == 0 {
		if _, err := b.add(ctx, owner, Member); err != nil {
			return nil, fmt.Errorf("record the owner: %w", err)
		}
	}
	return b, nil
}

// ConfiguredOwner calls changed if the configuration names another owner than when it was last called, and
// then stores that. After a crash in between changed is called again. former is the zero Person at the first
// start, and for who is removed.
func (b *Book) ConfiguredOwner(ctx context.Context, changed func(former, now Person)) error {
	b.write.Lock()
	defer b.write.Unlock()
	entry, err := b.shared.Get(ctx, ownerKey)
	var last gateway.Principal
	switch {
	case gateway.KindOf(err) == gateway.KindNotFound:
	case err != nil:
		return fmt.Errorf("read the last owner: %w", err)
	default:
		if last, err = parseKey(string(entry.Value), ""); err != nil {
			return fmt.Errorf("%s: %w", ownerKey, err)
		}
	}
	now := b.Owner()
	if now.ID == last {
		return nil
	}
	former, _ := b.Person(last)
	changed(former, now)
	return b.commit(ctx, nil, []gateway.Op{{Key: ownerKey, Value: []byte(key("", now.ID))}})
}

// read replaces the snapshot by what is stored.
func (b *Book) read(ctx context.Context) error {
	next := &snapshot{}
	people, _, err := b.shared.List(ctx, personPrefix)
	if err != nil {
		return err
	}
	next.people = make([]Person, len(people))
	for i, entry := range people {
		p := &next.people[i]
		if p.ID, err = parseKey(entry.Key, personPrefix); err == nil {
			err = json.Unmarshal(entry.Value, p)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Key, err)
		}
	}
	teams, _, err := b.shared.List(ctx, teamPrefix)
	if err != nil {
		return err
	}
	next.teams = make([]Team, len(teams))
	for i, entry := range teams {
		t := &next.teams[i]
		if t.ID, err = parseKey(entry.Key, teamPrefix); err == nil {
			err = json.Unmarshal(entry.Value, t)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Key, err)
		}
	}
	slices.SortFunc(next.people, func(a, b Person) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(next.teams, func(a, b Team) int { return cmp.Compare(a.ID, b.ID) })
	b.now.Store(next.withOwner(b.owner))
	return nil
}

// withOwner returns s with the owner of the configuration, whose stored role does not count.
func (s *snapshot) withOwner(mail string) *snapshot {
	if i := slices.IndexFunc(s.people, func(p Person) bool { return p.Mail == mail }); i >= 0 {
		s.owner = s.people[i].ID
	}
	return s
}

// Watch calls f after every change, until which it holds up further ones. f must not write to the Book.
func (b *Book) Watch(f func()) {
	b.write.Lock()
	defer b.write.Unlock()
	b.watch = append(b.watch, f)
}

// Owner returns the owner of the configuration.
func (b *Book) Owner() Person {
	s := b.now.Load()
	p, _ := s.person(s.owner)
	return p
}

// Person returns who has an ID. It is false for who is removed.
func (b *Book) Person(id gateway.Principal) (Person, bool) { return b.now.Load().person(id) }

func (s *snapshot) person(id gateway.Principal) (Person, bool) {
	i, ok := slices.BinarySearchFunc(s.people, id, func(p Person, id gateway.Principal) int { return cmp.Compare(p.ID, id) })
	if !ok {
		return Person{}, false
	}
	p := s.people[i]
	if p.ID == s.owner {
		p.Role = Owner
	}
	return p, true
}

// ByMail returns who has an address, in the form of ParseAddress.
func (b *Book) ByMail(mail string) (Person, bool) {
	s := b.now.Load()
	i := slices.IndexFunc(s.people, func(p Person) bool { return p.Mail == mail })
	if i < 0 {
		return Person{}, false
	}
	return s.person(s.people[i].ID)
}

// Len returns how many people there are.
func (b *Book) Len() int { return len(b.now.Load().people) }

// All returns everyone, ordered by address.
func (b *Book) All() []Person {
	s := b.now.Load()
	all := make([]Person, len(s.people))
	for i, p := range s.people {
		all[i], _ = s.person(p.ID)
	}
	slices.SortFunc(all, func(a, b Person) int { return cmp.Compare(a.Mail, b.Mail) })
	return all
}

// Team returns the team with an ID. It is false for one that is removed.
func (b *Book) Team(id gateway.Principal) (Team, bool) {
	s := b.now.Load()
	i, ok := s.team(id)
	if !ok {
		return Team{}, false
	}
	return s.shown(s.teams[i]), true
}

func (s *snapshot) team(id gateway.Principal) (int, bool) {
	return slices.BinarySearchFunc(s.teams, id, func(t Team, id gateway.Principal) int { return cmp.Compare(t.ID, id) })
}

// shown returns a team without its members who are removed: the record loses them with its next change.
func (s *snapshot) shown(t Team) Team {
	t.Members = slices.DeleteFunc(slices.Clone(t.Members), func(id gateway.Principal) bool {
		_, ok := s.person(id)
		return !ok
	})
	return t
}

// TeamNamed returns the team that has a name.
func (b *Book) TeamNamed(name string) (Team, bool) {
	s := b.now.Load()
	i := slices.IndexFunc(s.teams, func(t Team) bool { return t.Name == name })
	if i < 0 {
		return Team{}, false
	}
	return s.shown(s.teams[i]), true
}

// Teams returns all teams, ordered by name.
func (b *Book) Teams() []Team {
	s := b.now.Load()
	all := make([]Team, len(s.teams))
	for i, t := range s.teams {
		all[i] = s.shown(t)
	}
	slices.SortFunc(all, func(a, b Team) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Name returns the address of a person, or the name of a team; it is empty for who is removed.
func (b *Book) Name(id gateway.Principal) string {
	s := b.now.Load()
	if p, ok := s.person(id); ok {
		return p.Mail
	}
	if i, ok := s.team(id); ok {
		return s.teams[i].Name
	}
	return ""
}
