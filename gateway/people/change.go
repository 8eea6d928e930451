package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
)

// The keys of a Book in gateway.Shared.
const (
	personPrefix = "person/"      // person/<id>: a Person
	mailPrefix   = "person-mail/" // person-mail/<address>: the ID of who has it
	teamPrefix   = "team/"        // team/<id>: a Team
	namePrefix   = "team-name/"   // team-name/<name>: the ID of the team that has it
	lastKey      = "principal"    // the last ID that was given, in decimal
	ownerKey     = "config-owner" // the ID of the owner whom the configuration named last
)

// Add adds a person, or sets the role of one who is there; before is the one that was stored, empty for
// who is new. The empty role keeps it, and makes somebody new a guest. Of the owner of the configuration
// the stored role counts once that names another. Errors: KindConflict at the limit, and for a lower role
// of the owner of the configuration.
func (b *Book) Add(ctx context.Context, mail string, role Role) (p Person, before Role, err error) {
	mail, err = ParseAddress(mail)
	if err != nil {
		return Person{}, "", err
	}
	b.write.Lock()
	defer b.write.Unlock()
	now := b.now.Load()
	i := slices.IndexFunc(now.people, func(p Person) bool { return p.Mail == mail })
	if i >= 0 {
		have := now.people[i]
		before := have.Role
		switch {
		case have.ID == now.owner && role != "" && role != Owner:
			return Person{}, "", errConfigured(mail)
		case role != "" && role != before:
			have.Role = role
			err = b.savePerson(ctx, have)
		}
		p, _ := b.Person(have.ID)
		return p, before, err
	}
	if len(now.people) >= MaxPeople {
		return Person{}, "", gateway.Errorf(gateway.KindConflict, "there are %d people, which is the limit", MaxPeople).
			WithHint("Remove somebody: lodge person rm ADDRESS. A share with @example.com admits all who have an address there.")
	}
	if role == "" {
		role = Guest
	}
	p, err = b.add(ctx, mail, role)
	return p, "", err
}

func errConfigured(mail string) error {
	return gateway.Errorf(gateway.KindConflict, "%s is the owner that lodged's configuration names, who stays one", mail).
		WithHint("Set another owner in /etc/lodge/lodge.toml and restart lodged; then this one can be removed.")
}

// add adds somebody who is not there.
func (b *Book) add(ctx context.Context, mail string, role Role) (Person, error) {
	id, still, last, err := b.nextID(ctx)
	if err != nil {
		return Person{}, err
	}
	p := Person{ID: id, Mail: mail, Role: role, Added: time.Now().UTC().Truncate(time.Second)}
	value, err := json.Marshal(p)
	if err != nil {
		return Person{}, err
	}
	err = b.commit(ctx, []gateway.Cond{still, {Key: mailPrefix + mail}}, []gateway.Op{
		last, {Key: key(personPrefix, id), Value: value}, {Key: mailPrefix + mail, Value: []byte(strconv.FormatUint(uint64(id), 10))},
	})
	if err != nil {
		return Person{}, err
	}
	now := b.now.Load()
	b.show(&snapshot{people: append(slices.Clip(now.people), p), teams: now.teams}) // IDs grow
	p, _ = b.Person(id)
	return p, nil
}

func (b *Book) savePerson(ctx context.Context, p Person) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := b.commit(ctx, nil, []gateway.Op{{Key: key(personPrefix, p.ID), Value: value}}); err != nil {
		return err
	}
	now := b.now.Load()
	people := slices.Clone(now.people)
	for i := range people {
		if people[i].ID == p.ID {
			people[i] = p
		}
	}
	b.show(&snapshot{people: people, teams: now.teams})
	return nil
}

// Remove removes a person. Who is not there is KindNotFound; the owner of the configuration is
// KindConflict, so that there always is one.
func (b *Book) Remove(ctx context.Context, mail string) (Person, error) {
	mail, err := ParseAddress(mail)
	if err != nil {
		return Person{}, err
	}
	b.write.Lock()
	defer b.write.Unlock()
	p, ok := b.ByMail(mail)
	now := b.now.Load()
	switch {
	case !ok:
		return Person{}, NotFound(mail)
	case p.ID == now.owner:
		return Person{}, errConfigured(mail)
	}
	// Teams keep the ID: nobody else gets it.
	if err := b.commit(ctx, nil, []gateway.Op{{Key: key(personPrefix, p.ID), Delete: true}, {Key: mailPrefix + mail, Delete: true}}); err != nil {
		return Person{}, err
	}
	people := slices.DeleteFunc(slices.Clone(now.people), func(q Person) bool { return q.ID == p.ID })
	b.show(&snapshot{people: people, teams: now.teams})
	return p, nil
}

// NotFound is the error for somebody, or a team, who is not in the Book.
func NotFound(who string) error {
	if strings.Contains(who, "@") {
		return gateway.Errorf(gateway.KindNotFound, "nobody here has the address %s", who).WithHint("Add them: lodge person add %s", who)
	}
	return gateway.Errorf(gateway.KindNotFound, "there is no team %.100q", who).WithHint("lodge team ls lists the teams.")
}

// ChangeTeam adds people to a team and removes others from it. A team that does not exist is made,
// unless there is somebody to remove. Errors: KindConflict at the limit.
func (b *Book) ChangeTeam(ctx context.Context, name string, add, remove []gateway.Principal) (Team, error) {
	if err := CheckTeamName(name); err != nil {
		return Team{}, err
	}
	b.write.Lock()
	defer b.write.Unlock()
	t, ok := b.TeamNamed(name)
	if !ok && len(remove) > 0 {
		return Team{}, NotFound(name)
	}
	t.Name = name
	t.Members = append(t.Members, add...)
	t.Members = slices.DeleteFunc(t.Members, func(id gateway.Principal) bool { return slices.Contains(remove, id) })
	slices.Sort(t.Members)
	t.Members = slices.Compact(t.Members)
	if ok {
		return t, b.saveTeam(ctx, t, nil, nil)
	}
	if len(b.now.Load().teams) >= MaxTeams {
		return Team{}, gateway.Errorf(gateway.KindConflict, "there are %d teams, which is the limit", MaxTeams).WithHint("Remove one: lodge team rm NAME")
	}
	id, still, last, err := b.nextID(ctx)
	if err != nil {
		return Team{}, err
	}
	t.ID = id
	claim := gateway.Op{Key: namePrefix + name, Value: []byte(strconv.FormatUint(uint64(id), 10))}
	return t, b.saveTeam(ctx, t, []gateway.Cond{still, {Key: claim.Key}}, []gateway.Op{last, claim})
}

func (b *Book) saveTeam(ctx context.Context, t Team, still []gateway.Cond, do []gateway.Op) error {
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := b.commit(ctx, still, append(do, gateway.Op{Key: key(teamPrefix, t.ID), Value: value})); err != nil {
		return err
	}
	now := b.now.Load()
	teams := slices.Clone(now.teams)
	if i, ok := now.team(t.ID); ok {
		teams[i] = t
	} else {
		teams = append(teams, t) // IDs grow
	}
	b.show(&snapshot{people: now.people, teams: teams})
	return nil
}

// RemoveTeam removes a team; its members stay.
func (b *Book) RemoveTeam(ctx context.Context, name string) (Team, error) {
	b.write.Lock()
	defer b.write.Unlock()
	t, ok := b.TeamNamed(name)
	if !ok {
		return Team{}, NotFound(name)
	}
	if err := b.commit(ctx, nil, []gateway.Op{{Key: key(teamPrefix, t.ID), Delete: true}, {Key: namePrefix + name, Delete: true}}); err != nil {
		return Team{}, err
	}
	now := b.now.Load()
	teams := slices.DeleteFunc(slices.Clone(now.teams), func(u Team) bool { return u.ID == t.ID })
	b.show(&snapshot{people: now.people, teams: teams})
	return t, nil
}

// nextID returns the next ID, the condition that it still is, and the operation that takes it.
func (b *Book) nextID(ctx context.Context) (id gateway.Principal, still gateway.Cond, take gateway.Op, err error) {
	still = gateway.Cond{Key: lastKey}
	entry, err := b.shared.Get(context.WithoutCancel(ctx), lastKey)
	var last uint64
	switch {
	case gateway.KindOf(err) == gateway.KindNotFound:
	case err != nil:
		return 0, still, take, err
	default:
		still.Rev = entry.Rev
		if last, err = strconv.ParseUint(string(entry.Value), 10, 63); err != nil {
			return 0, still, take, fmt.Errorf("%s: %w", lastKey, err)
		}
	}
	id = gateway.Principal(last + 1)
	return id, still, gateway.Op{Key: lastKey, Value: []byte(strconv.FormatUint(last+1, 10))}, nil
}

// commit writes a change to disk. After an error it reads what is there: the outcome may be unknown.
func (b *Book) commit(ctx context.Context, still []gateway.Cond, do []gateway.Op) error {
	ctx = context.WithoutCancel(ctx)
	_, err := b.shared.Commit(ctx, still, do)
	if err == nil {
		return nil
	}
	unread := b.read(ctx)
	if unread == nil {
		b.changed()
	}
	return fmt.Errorf("record people: %w", errors.Join(err, unread))
}

// show makes a change visible. The caller holds b.write.
func (b *Book) show(next *snapshot) {
	b.now.Store(next.withOwner(b.owner))
	b.changed()
}

// changed calls the watchers. The caller holds b.write.
func (b *Book) changed() {
	for _, f := range b.watch {
		f()
	}
}

func key(prefix string, id gateway.Principal) string {
	return prefix + strconv.FormatUint(uint64(id), 10)
}

func parseKey(key, prefix string) (gateway.Principal, error) {
	id, err := strconv.ParseUint(strings.TrimPrefix(key, prefix), 10, 63)
	return gateway.Principal(id), err
}
