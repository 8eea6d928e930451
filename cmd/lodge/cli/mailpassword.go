package cli

import (
	"context"
	"io"
)

type mailPasswordCmd struct {
	named

	Label  string `help:"What the password is for, such as phone." name:"name" placeholder:"LABEL"`
	List   bool   `help:"List the passwords, without what they are." xor:"what"`
	Revoke string `help:"Remove a password, and end what is open by it." placeholder:"LABEL" xor:"what"`
}

// Help is the text below the usage.
func (*mailPasswordCmd) Help() string {
	return "A mail program anywhere reads the VM's mail with it, by IMAP with TLS on port 993, if the host's owner has set imap_port. " +
		"The user is the name of the VM. The password is shown once."
}

// Run makes, lists or removes passwords.
func (c *mailPasswordCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.List:
		return c.list(ctx, a)
	case c.Revoke != "":
		return a.removed(c.Revoke, a.client.RemoveMailPassword(ctx, c.Name, c.Revoke))
	}
	made, err := a.client.NewMailPassword(ctx, c.Name, c.Label)
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) {
		row(w, "server", made.Host+", port 993, SSL/TLS")
		row(w, "user", made.User)
		row(w, "password", made.Password)
		row(w, "name", made.Label)
	})
}

func (c *mailPasswordCmd) list(ctx context.Context, a *app) error {
	all, err := a.client.MailPasswords(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No mail passwords. Make one: lodge mail password "+c.Name+" --name phone")
			return
		}
		row(w, "NAME", "MADE")
		for _, p := range all {
			row(w, p.Label, day(p.Made))
		}
	})
}
