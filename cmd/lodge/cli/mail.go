package cli

import (
	"context"
	"io"

	"lodge/gateway"
)

type mailCmd struct {
	Show      mailShowCmd      `cmd:"" default:"withargs" help:"List the mail of a VM, or of postmaster, or show one message."`
	Ls        mailLsCmd        `cmd:"" help:"List how much mail there is, and how long it waits."`
	Search    mailSearchCmd    `cmd:"" help:"Find mail of a VM, or of postmaster."`
	Log       mailLogCmd       `cmd:"" help:"Show what became of the mail of a VM, refused mail too."`
	Queue     mailQueueCmd     `cmd:"" help:"List the mail that waits to leave the host, retry or remove it."`
	Redeliver mailRedeliverCmd `cmd:"" help:"Deliver mail into its VM again."`
	Rm        mailRmCmd        `cmd:"" help:"Remove mail of a VM, or of postmaster, from the host."`
	Set       mailSetCmd       `cmd:"" help:"Change settings of a VM's mail, or show them."`
	DNS       mailDNSCmd       `cmd:"" help:"Print the DNS records that mail of this host, or of the own domains of a VM, needs." name:"dns"`
	Address   mailAddressCmd   `cmd:"" help:"Make, list and remove addresses of a VM that only some may write to, for a time."`
	Password  mailPasswordCmd  `cmd:"" help:"Make, list and revoke passwords for reading a VM's mail by IMAP from outside."`
}

// Help is the text below the usage.
func (*mailCmd) Help() string {
	return "lodge mail VM is short for lodge mail show VM, which also reads the mail of a VM that is named like one of the commands."
}

type mailShowCmd struct {
	named

	QueueID string `arg:"" help:"The message to show, as it is stored." optional:""`
	Raw     bool   `help:"Write control characters to the terminal unchanged."`
	Limit   uint16 `default:"100" help:"List at most N messages, the newest first." placeholder:"N"`
}

// Run lists mail or shows one message; with --json a message is {"queue_id","message"}, the latter
// in base64.
func (c *mailShowCmd) Run(ctx context.Context, a *app) error {
	if c.QueueID != "" {
		return c.show(ctx, a)
	}
	messages, err := a.client.Mail(ctx, c.Name, int(c.Limit))
	if err != nil {
		return err
	}
	return a.print(messages, func(w io.Writer) { list(w, c.Name, messages) })
}

func list(w io.Writer, name string, messages []gateway.Message) {
	if len(messages) == 0 {
		row(w, "No mail for "+name+".")
		return
	}
	row(w, "QUEUE ID", "RECEIVED", "FROM", "TO", "SIZE", "IN THE VM", "SUBJECT")
	for _, m := range messages {
		delivered := "waiting"
		switch {
		case name == gateway.Postmaster().Name: // no VM's
			delivered = "-"
		case m.Delivered:
			delivered = "yes"
		}
		row(w, m.QueueID, m.Received.Local().Format("01-02 15:04:05"), "<"+m.From+">", m.Rcpt, size(m.Bytes), delivered, m.Subject)
	}
	for _, m := range messages {
		if m.Error != "" {
			row(w, m.QueueID, "waits: "+m.Error)
		}
	}
}

func (c *mailShowCmd) show(ctx context.Context, a *app) error {
	message, err := a.client.Message(ctx, c.Name, c.QueueID)
	if err != nil {
		return err
	}
	defer message.Close() //nolint:errcheck // it was only read
	if !a.JSON {
		return brokenOff(ctx, a.passed(message, c.Raw))
	}
	raw, err := io.ReadAll(message)
	if err != nil {
		return brokenOff(ctx, err)
	}
	return a.printJSON(struct {
		QueueID string `json:"queue_id"`
		Message []byte `json:"message"`
	}{c.QueueID, raw})
}
