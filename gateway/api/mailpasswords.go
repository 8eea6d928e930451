package api

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
)

// MailPassword is a password for a VM's mail by IMAP. Only NewMailPassword returns the password itself.
type MailPassword struct {
	Label    string    `json:"label"` // what it is for; unique in the VM
	User     string    `json:"user"`  // the user name that goes with it
	Host     string    `json:"host"`  // the IMAP server
	Password string    `json:"password,omitempty"`
	Made     time.Time `json:"made"`
}

// NewMailPassword makes a password, which is returned once and never shown again. Without a label it gets one.
// KindTaken: the VM has one of that label. KindConflict: it has gateway.MaxMailPasswords.
func (s Session) NewMailPassword(ctx context.Context, name, label string) (MailPassword, error) {
	m, err := s.vm(verbNewPassword, name)
	if err != nil {
		return MailPassword{}, err
	}
	if err := checkLabel(label); err != nil {
		return MailPassword{}, err
	}
	if strings.Contains(label, "/") || label == "." || label == ".." {
		return MailPassword{}, gateway.Invalid("not a label: %.100q", label).WithHint("The label of a password has no slash, and is not a dot or two.")
	}
	password := gateway.NewMailPassword()
	made := gateway.MailPassword{Label: label, Hash: gateway.HashMailPassword(password), Made: time.Now().UTC().Truncate(time.Second), By: s.person().ID}
	m, err = s.update(ctx, verbNewPassword, m.ID, func(m *gateway.VM) error { return addPassword(m, &made) })
	if err != nil {
		return MailPassword{}, err
	}
	s.audit(ctx, gateway.EventPasswordMade, gateway.LogVM(m.Identity), slog.String("id", made.Label))
	shown := s.showPassword(m, made)
	shown.Password = password
	return shown, nil
}

// addPassword adds a password to a VM's record, with a label if it has none.
func addPassword(m *gateway.VM, p *gateway.MailPassword) error {
	if m.Desired == gateway.Removed {
		return gateway.NotFound(m.Name)
	}
	all := m.Mail.Passwords
	taken := func(label string) bool {
		return slices.ContainsFunc(all, func(p gateway.MailPassword) bool { return p.Label == label })
	}
	if p.Label == "" {
		for i := 1; p.Label == "" || taken(p.Label); i++ {
			p.Label = fmt.Sprintf("mail-%d", i)
		}
	}
	switch {
	case taken(p.Label):
		return gateway.Errorf(gateway.KindTaken, "%s has a mail password %q already", m.Name, p.Label).
			WithHint("Choose another --name, or revoke it: lodge mail password %s --revoke '%s'", m.Name, p.Label)
	case len(all) >= gateway.MaxMailPasswords:
		return gateway.Errorf(gateway.KindConflict, "%s has %d mail passwords, which is the limit", m.Name, len(all)).
			WithHint("Revoke one: lodge mail password %s --list", m.Name)
	}
	m.Mail.Passwords = append(slices.Clone(all), *p) // other copies of the record have the old list
	return nil
}

// MailPasswords lists the passwords for a VM's mail, without what they are.
func (s Session) MailPasswords(_ context.Context, name string) ([]MailPassword, error) {
	m, err := s.vm(verbPasswords, name)
	if err != nil {
		return nil, err
	}
	all := []MailPassword{} // an empty list is [] in JSON
	for _, p := range m.Mail.Passwords {
		all = append(all, s.showPassword(m, p))
	}
	return all, nil
}

func (s Session) showPassword(m gateway.VM, p gateway.MailPassword) MailPassword {
	return MailPassword{Label: p.Label, User: m.Name, Host: m.Name + "." + s.api.Domain, Made: p.Made}
}

// RemoveMailPassword removes a password, and ends what is open by it.
func (s Session) RemoveMailPassword(ctx context.Context, name, label string) error {
	m, err := s.vm(verbRemovePassword, name)
	if err != nil {
		return err
	}
	m, err = s.update(ctx, verbRemovePassword, m.ID, func(m *gateway.VM) error {
		left := slices.DeleteFunc(slices.Clone(m.Mail.Passwords), func(p gateway.MailPassword) bool { return p.Label == label })
		if len(left) == len(m.Mail.Passwords) {
			return gateway.Errorf(gateway.KindNotFound, "%s has no mail password %.100q", m.Name, label).
				WithHint("lodge mail password %s --list lists them.", m.Name)
		}
		m.Mail.Passwords = left
		return nil
	})
	if err == nil {
		s.audit(ctx, gateway.EventPasswordRemoved, gateway.LogVM(m.Identity), slog.String("id", label))
	}
	return err
}
