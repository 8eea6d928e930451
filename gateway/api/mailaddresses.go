package api

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
)

// DefaultMailLife is how long an address is valid unless its request has another time.
const DefaultMailLife = 30 * 24 * time.Hour

// MailAddress is an address of a VM that only some may write to, for a time.
type MailAddress struct {
	Address string    `json:"address"`         // its local part cannot be guessed, and is never used again
	From    []string  `json:"from"`            // who may write to it: mail addresses and @domains
	Label   string    `json:"label,omitempty"` // what it is for
	Expires time.Time `json:"expires"`         // its mail is refused from then on
}

// MailAddressSpec is the request for an address. The zero Life is DefaultMailLife.
type MailAddressSpec struct {
	From  []string      // mail addresses and @domains, 1 to 256
	Label string        // at most 64 bytes
	Life  time.Duration // a minute to 366 days
}

// NewMailAddress makes an address. Those that have expired make room.
func (s Session) NewMailAddress(ctx context.Context, name string, spec MailAddressSpec) (MailAddress, error) {
	m, err := s.vm(verbNewAddress, name)
	if err != nil {
		return MailAddress{}, err
	}
	if err := spec.check(); err != nil {
		return MailAddress{}, err
	}
	now := time.Now()
	made := gateway.MailAddress{Local: gateway.NewMailLocal(), From: spec.From, Label: spec.Label, Expires: now.Add(spec.Life).UTC().Truncate(time.Second)}
	m, err = s.update(ctx, verbNewAddress, m.ID, func(m *gateway.VM) error { return addAddress(m, made, now) })
	if err != nil {
		return MailAddress{}, err
	}
	s.audit(ctx, gateway.EventAddressMade, gateway.LogVM(m.Identity), slog.String("id", made.Local), slog.String("with", strings.Join(made.From, ",")),
		slog.Time("until", made.Expires))
	return s.showAddress(m, made), nil
}

// check brings the senders into one form, and sets the default.
func (spec *MailAddressSpec) check() (err error) {
	if len(spec.From) == 0 {
		return gateway.Invalid("nobody may write to an address without senders").WithHint("Name them: lodge mail address VM --from @shop.example")
	}
	if spec.From, err = parseSenders(spec.From); err != nil {
		return err
	}
	switch {
	case spec.Life == 0:
		spec.Life = DefaultMailLife
	case spec.Life < gateway.MinMailLife || spec.Life > gateway.MaxMailLife:
		return gateway.Invalid("a life of %s", spec.Life).WithHint("It is valid for a minute to 366 days, such as 30d.")
	}
	return checkLabel(spec.Label)
}

// addAddress adds an address to a VM's record. KindConflict: at a limit.
func addAddress(m *gateway.VM, a gateway.MailAddress, now time.Time) error {
	if m.Desired == gateway.Removed {
		return gateway.NotFound(m.Name)
	}
	var all []gateway.MailAddress // other copies of the record have the old list
	for _, other := range m.Mail.Addresses {
		if now.Before(other.Expires) {
			all = append(all, other)
		}
	}
	if len(all) >= gateway.MaxMailAddresses {
		return gateway.Errorf(gateway.KindConflict, "%s has %d such addresses, which is the limit", m.Name, len(all)).
			WithHint("Remove one: lodge mail address ls %s", m.Name)
	}
	m.Mail.Addresses = append(all, a)
	return checkSenders(*m)
}

// MailAddresses lists the addresses of a VM that have not expired; the first to expire is the first.
func (s Session) MailAddresses(_ context.Context, name string) ([]MailAddress, error) {
	m, err := s.vm(verbAddresses, name)
	if err != nil {
		return nil, err
	}
	return s.addresses(m, time.Now()), nil
}

func (s Session) addresses(m gateway.VM, now time.Time) []MailAddress {
	all := []MailAddress{} // an empty list is [] in JSON
	for _, a := range m.Mail.Addresses {
		if now.Before(a.Expires) {
			all = append(all, s.showAddress(m, a))
		}
	}
	slices.SortStableFunc(all, func(a, b MailAddress) int { return a.Expires.Compare(b.Expires) })
	return all
}

func (s Session) showAddress(m gateway.VM, a gateway.MailAddress) MailAddress {
	return MailAddress{Address: a.Local + "@" + m.Name + "." + s.api.Domain, From: a.From, Label: a.Label, Expires: a.Expires}
}

// RemoveMailAddress removes an address, which may be given without its domain. Its mail is refused from
// then on; it becomes no address that anyone may write to.
func (s Session) RemoveMailAddress(ctx context.Context, name, address string) error {
	m, err := s.vm(verbRemoveAddress, name)
	if err != nil {
		return err
	}
	local, _, _ := strings.Cut(strings.ToLower(address), "@")
	m, err = s.update(ctx, verbRemoveAddress, m.ID, func(m *gateway.VM) error {
		left := slices.DeleteFunc(slices.Clone(m.Mail.Addresses), func(a gateway.MailAddress) bool { return a.Local == local })
		if len(left) == len(m.Mail.Addresses) {
			return gateway.Errorf(gateway.KindNotFound, "%s has no address %.100q", m.Name, address).WithHint("lodge mail address ls %s lists them.", m.Name)
		}
		m.Mail.Addresses = left
		return nil
	})
	if err == nil {
		s.audit(ctx, gateway.EventAddressRemoved, gateway.LogVM(m.Identity), slog.String("id", local))
	}
	return err
}
