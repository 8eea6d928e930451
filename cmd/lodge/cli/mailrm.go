package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"lodge/gateway"
)

type mailRmCmd struct {
	named

	QueueIDs []string `arg:"" help:"The messages to remove, as lodge mail lists them." optional:""`
	All      bool     `help:"Remove every message."`
	Before   string   `help:"Remove what was received before a time: 2026-01-31, or 30d ago." placeholder:"TIME"`
	Yes      bool     `help:"Do not ask: remove also what is not in the VM yet." short:"y"`
}

// Help is the text below the usage.
func (*mailRmCmd) Help() string {
	return "The mail is removed from the host, and from what IMAP shows; copies in ~/Maildir of the VM stay. " +
		"Mail that waits for the VM never gets there once it is removed, so lodge asks first. If one of the messages does not exist, none is removed."
}

// Run removes messages. It asks before it removes many, and before it removes what is nowhere else.
func (c *mailRmCmd) Run(ctx context.Context, a *app) error {
	which, err := c.which(time.Now())
	if err != nil {
		return err
	}
	if many := which.All || !which.Before.IsZero(); many && !c.Yes {
		what := "all mail"
		if !which.All {
			what = "the mail before " + which.Before.Local().Format(time.DateTime)
		}
		if err := a.confirm("Remove " + what + " of " + c.Name + " from the host?"); err != nil {
			return err
		}
	}
	removed, err := a.client.RemoveMail(ctx, c.Name, which)
	if gateway.KindOf(err) == gateway.KindConflict && !c.Yes {
		if _, atTerminal := terminal(a.in); !atTerminal {
			return err
		}
		if err := a.confirm(err.Error() + ". Remove them, so that the VM never gets them?"); err != nil {
			return err
		}
		which.Waiting = true
		removed, err = a.client.RemoveMail(ctx, c.Name, which)
	}
	if err != nil {
		return err
	}
	return a.print(removed, func(w io.Writer) {
		text := fmt.Sprintf("Removed from the host: %d of the messages of %s (%s)", removed.Messages, c.Name, size(removed.Bytes))
		if removed.Waiting > 0 {
			text += fmt.Sprintf(", %d of which never got into the VM", removed.Waiting)
		}
		row(w, text+".")
	})
}

// which reads the arguments.
func (c *mailRmCmd) which(now time.Time) (which gateway.MailRemoval, err error) {
	ways := 0
	for _, set := range []bool{len(c.QueueIDs) > 0, c.All, c.Before != ""} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return which, gateway.Invalid("expected queue ids, --all or --before, and one of these").WithHint("lodge mail %s lists the messages.", c.Name)
	}
	which = gateway.MailRemoval{QueueIDs: c.QueueIDs, All: c.All, Waiting: c.Yes}
	if c.Before != "" {
		which.Before, err = gateway.ParseMoment(c.Before, now)
	}
	return which, err
}
