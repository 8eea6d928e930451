package cli

import (
	"context"
	"fmt"
	"io"

	"lodge/gateway"
)

type mailCmd struct {
	named

	QueueID string `arg:"" help:"One message, shown as it is stored." optional:""`
	Limit   uint16 `default:"100" help:"List at most so many, the newest first." placeholder:"N"`
}

// Run lists mail or shows one message; with --json a message is {"queue_id","message"}, the latter in base64.
func (c *mailCmd) Run(ctx context.Context, a *app) error {
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
		_, _ = fmt.Fprintf(w, "No mail yet for %s.\n", name) // flushed, and checked, by print
		return
	}
	_, _ = fmt.Fprintln(w, "QUEUE ID\tRECEIVED\tFROM\tTO\tSIZE\tIN THE VM\tSUBJECT")
	for _, m := range messages {
		delivered := "waiting"
		if m.Delivered {
			delivered = "yes"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.QueueID, m.Received.Local().Format("01-02 15:04:05"),
			printable("<"+m.From+">"), printable(m.Rcpt), size(m.Bytes), delivered, printable(m.Subject))
	}
}

// printable keeps a stranger's text from steering the terminal or the table.
func printable(text string) string {
	clean := []rune(text)
	for i, c := range clean {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			clean[i] = '?'
		}
	}
	return string(clean)
}

func (c *mailCmd) show(ctx context.Context, a *app) error {
	message, err := a.client.Message(ctx, c.Name, c.QueueID)
	if err != nil {
		return err
	}
	defer message.Close() //nolint:errcheck // it was only read
	if !a.JSON {
		_, err = io.Copy(a.out, message)
		return brokenOff(ctx, err)
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
