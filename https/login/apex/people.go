package apex

import (
	"context"
	"log/slog"
	"strings"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/https/access"
)

// current returns a person as of now. It is false for one who is removed: the ID is never used again.
func (h *Handler) current(_ context.Context, person access.Person) (access.Person, bool) {
	p, ok := h.Policy.People.Person(person.ID)
	return access.Person{ID: p.ID, Address: p.Mail}, ok
}

// proven returns the person with a mail address that a provider has proven. Somebody with an address of
// a domain that a VM is shared with becomes a guest, as by lodge person link. KindDenied: a stranger.
func (h *Handler) proven(ctx context.Context, address string) (access.Person, error) {
	mail, err := people.ParseAddress(address)
	if err != nil {
		return access.Person{}, err
	}
	p, ok := h.Policy.People.ByMail(mail)
	if !ok && h.Admits(mail[strings.LastIndexByte(mail, '@')+1:]) {
		if p, _, err = h.Policy.People.Add(ctx, mail, ""); err != nil {
			return access.Person{}, err
		}
		gateway.Audit(ctx, h.Logger, gateway.EventPersonAdded, slog.String("person", p.Mail), slog.String("role", string(p.Role)))
		ok = true
	}
	if !ok {
		return access.Person{}, gateway.Errorf(gateway.KindDenied, "%s is not known here", mail).WithHint("The owner of this host has to let you in first.")
	}
	return access.Person{ID: p.ID, Address: p.Mail}, nil
}
