package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"lodge/gateway"
)

type mailLsCmd struct{}

// Help is the text below the usage.
func (*mailLsCmd) Help() string {
	return "Mailboxes that cannot be read are named after the others, with exit status 1."
}

// Run lists mailboxes. One that cannot be read fails it once the others are listed.
func (*mailLsCmd) Run(ctx context.Context, a *app) error {
	states, err := a.client.MailStates(ctx)
	if err != nil {
		return err
	}
	err = a.print(states, func(w io.Writer) {
		row(w, "NAME", "MESSAGES", "SIZE", "WAITING", "OLDEST WAITS", "OUTGOING")
		for _, s := range states {
			if s.Error == "" {
				row(w, s.Name, s.Messages, size(s.Bytes), s.Waiting, ago(s.Oldest), s.Queued)
			}
		}
	})
	if err != nil {
		return err
	}
	var broken failures
	for _, s := range states {
		if s.Error != "" {
			broken = append(broken, gateway.Errorf(gateway.KindInternal, "%s: %s", s.Name, s.Error).WithHint("On the host: journalctl -u lodged -g 'mailbox not read'"))
		}
	}
	if len(broken) > 0 {
		return broken
	}
	return nil
}

// ago is how long ago a time was, in its largest units; "-" for none.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	switch d := time.Since(t); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

type mailSearchCmd struct {
	named

	Terms []string `arg:"" help:"Texts that are all in the message, or field:text."`
	Limit uint16   `default:"100" help:"List at most N messages, the newest first." placeholder:"N"`
}

// Help is the text below the usage.
func (*mailSearchCmd) Help() string {
	return "A text is looked for in the whole message, decoded, whatever the case; quote one that has spaces. The fields are " +
		"from:, to:, cc:, subject: and body:, which have a text; since: and before:, such as since:7d or before:2026-01-31; is:waiting and is:delivered; and id:."
}

// Run lists messages.
func (c *mailSearchCmd) Run(ctx context.Context, a *app) error {
	found, err := a.client.SearchMail(ctx, c.Name, c.Terms, int(c.Limit))
	if err != nil {
		return err
	}
	return a.print(found, func(w io.Writer) { list(w, c.Name, found) })
}

type mailLogCmd struct {
	named

	Limit uint16 `default:"100" help:"Show at most N events, the newest first." placeholder:"N"`
}

// Help is the text below the usage.
func (*mailLogCmd) Help() string {
	return "The log of postmaster has mail for addresses that no VM has. A VM's log is kept up to 512 KiB; what was refused displaces nothing else."
}

// Run shows events.
func (c *mailLogCmd) Run(ctx context.Context, a *app) error {
	events, err := a.client.MailLog(ctx, c.Name, int(c.Limit))
	if err != nil {
		return err
	}
	return a.print(events, func(w io.Writer) {
		if len(events) == 0 {
			row(w, "No mail in the log of "+c.Name+".")
			return
		}
		row(w, "TIME", "EVENT", "QUEUE ID", "FROM", "TO", "REMOTE", "SIZE", "REPLY")
		for _, e := range events {
			bytes := "-"
			if e.Bytes > 0 {
				bytes = size(e.Bytes)
			}
			row(w, e.Time.Local().Format("01-02 15:04:05"), e.Kind, orDash(e.QueueID), "<"+e.From+">", orDash(e.To), orDash(e.Remote), bytes, orDash(e.Reply))
		}
	})
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

type mailQueueCmd struct {
	Name  string   `arg:"" help:"The VM whose mail is listed; without it that of all VMs." optional:"" predictor:"vm"`
	Retry bool     `help:"Retry now what waits, or what --id names." xor:"change"`
	ID    []string `help:"A letter to retry." name:"id" placeholder:"ID"`
	Rm    []string `help:"Remove a letter. Its sender gets no report." placeholder:"ID" xor:"change"`
	Limit uint16   `default:"100" help:"List at most N letters, the oldest first." placeholder:"N"`
}

// Help is the text below the usage.
func (*mailQueueCmd) Help() string {
	return "A letter is a message for one recipient outside of the host. Attempts are counted since lodged has started; REPLY is that of the last attempt. " +
		"A letter that is being sent when it is removed may still arrive."
}

// Run lists, retries or removes letters.
func (c *mailQueueCmd) Run(ctx context.Context, a *app) error {
	if len(c.ID) > 0 && !c.Retry {
		return gateway.Invalid("--id needs --retry").WithHint("Remove a letter: lodge mail queue --rm ID")
	}
	if c.Retry || len(c.Rm) > 0 {
		return c.change(ctx, a)
	}
	letters, err := a.client.MailQueue(ctx, c.Name, int(c.Limit))
	if err != nil {
		return err
	}
	return a.print(letters, func(w io.Writer) {
		if len(letters) == 0 {
			row(w, "No mail waits to leave the host.")
			return
		}
		row(w, "VM", "QUEUE ID", "AGE", "TO", "SIZE", "ATTEMPTS", "NEXT", "REPLY")
		for _, l := range letters {
			next := "now"
			if !l.Next.IsZero() {
				next = "in " + time.Until(l.Next).Round(time.Second).String()
			}
			row(w, l.VM, l.QueueID, ago(l.Queued), "<"+l.To+">", size(l.Bytes), l.Attempts, next, orDash(strings.TrimSpace(l.Server+" "+l.Reply)))
		}
	})
}

func (c *mailQueueCmd) change(ctx context.Context, a *app) error {
	changed, err := a.client.ChangeMailQueue(ctx, c.Name, gateway.QueueChange{Retry: c.Retry, Remove: !c.Retry, QueueIDs: append(c.ID, c.Rm...)})
	if err != nil {
		return err
	}
	return a.print(changed, func(w io.Writer) {
		what := "removed"
		if c.Retry {
			what = "retried"
		}
		row(w, fmt.Sprintf("Letters %s: %d", what, changed.Letters))
	})
}

type mailRedeliverCmd struct {
	named

	QueueIDs []string `arg:"" help:"The messages, as lodge mail lists them." optional:""`
	Since    string   `help:"All that were received since a time: 2026-01-31, or 30d ago." placeholder:"TIME"`
}

// Help is the text below the usage.
func (*mailRedeliverCmd) Help() string {
	return "For a VM that has lost its mail, or whose mail is to go another way now. A message that is still in ~/Maildir/new makes no second copy there; " +
		"one that a mail reader has moved does. lodge mail log shows the deliveries."
}

// Run has messages delivered again.
func (c *mailRedeliverCmd) Run(ctx context.Context, a *app) error {
	if (len(c.QueueIDs) > 0) == (c.Since != "") {
		return gateway.Invalid("expected queue ids or --since, and one of these").WithHint("lodge mail %s lists the messages.", c.Name)
	}
	which := gateway.MailRedelivery{QueueIDs: c.QueueIDs}
	if c.Since != "" {
		var err error
		if which.Since, err = gateway.ParseMoment(c.Since, time.Now()); err != nil {
			return err
		}
	}
	done, err := a.client.Redeliver(ctx, c.Name, which)
	if err != nil {
		return err
	}
	return a.print(done, func(w io.Writer) {
		row(w, fmt.Sprintf("Messages on their way into %s: %d", c.Name, done.Messages))
	})
}
