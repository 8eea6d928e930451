package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// maxQuotedBytes of the header of the message that a report is about are in it.
const maxQuotedBytes = 16 << 10

// maxLineBytes is RFC 5322 §2.1.1.
const maxLineBytes = 998

// report stores a report (RFC 3464) on recipients in the VM's own mailbox, unless the message is one
// itself. The queue id is that of the report: one that is there already, from before a crash, is enough.
func (o *outgoing) report(letters []letter, why []*failure, queueID string) error {
	if o.record.From == "" {
		o.logger().Warn("report not made", "queue_id", queueID)
		return nil
	}
	store, now := o.queue.config.Mailboxes, o.begun.UTC()
	box, err := store.Box(o.record.VM.ID)
	if gateway.KindOf(err) == gateway.KindNotFound {
		return nil // the VM was removed
	}
	if err != nil {
		return err
	}
	if _, err := box.Find(queueID); err == nil {
		return nil
	}
	quoted := make([]byte, min(maxQuotedBytes, o.message.Size()))
	if _, err := o.message.ReadAt(quoted, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read message: %w", err)
	}
	r := report{
		host: o.queue.config.Domain, to: o.record.From, queueID: queueID, now: now, arrived: letters[0].born,
		giveUp: letters[0].born.Add(o.queue.config.Times.GiveUp), header: quoted,
	}
	for i, m := range letters {
		r.about = append(r.about, outcome{m.to, why[i]})
		r.delayed = !why[i].permanent && now.Sub(m.born) <= o.queue.config.Times.GiveUp
	}
	staged, err := store.Stage()
	if err != nil {
		return err
	}
	defer staged.Remove()
	if _, err := staged.Write(r.body()); err != nil {
		return err
	}
	letter := mailbox.Letter{
		VM: o.record.VM.ID, QueueID: queueID, Rcpt: o.record.From, Subject: r.subject(), Received: now, Report: true,
		Head: fmt.Sprintf("Return-Path: <>\r\nDelivered-To: %s\r\n", o.record.From),
	}
	if err := store.Commit(staged, []mailbox.Letter{letter}); err != nil {
		return err
	}
	o.logger().Info("report stored", "queue_id", queueID, "rcpt", o.record.From)
	if o.queue.config.Arrived != nil && o.record.VM != gateway.Postmaster() {
		o.queue.config.Arrived(o.record.VM.ID)
	}
	return nil
}

// report is a delivery status notification (RFC 3464), for one message.
type report struct {
	host         string // who reports
	to           string
	queueID      string
	delayed      bool // the message still waits; else it has failed
	now, arrived time.Time
	giveUp       time.Time
	about        []outcome
	header       []byte // the first bytes of the message
}

// outcome is what has become of a recipient.
type outcome struct {
	rcpt string
	why  *failure
}

func (r report) subject() string {
	if r.delayed {
		return "Mail is delayed"
	}
	return "Mail was not delivered"
}

// body writes the report, in ASCII but for addresses and the quoted header, with CRLF line ends.
func (r report) body() []byte {
	boundary := "=_" + r.queueID
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail Delivery System <postmaster@%s>", r.host)
	line("To: %s", r.to)
	line("Subject: %s", r.subject())
	line("Date: %s", r.now.Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", r.queueID, r.host)
	line("Auto-Submitted: auto-replied")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status; boundary=%q", boundary)
	line("")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=utf-8")
	line("")
	r.text(line)
	line("")
	line("--%s", boundary)
	line("Content-Type: message/delivery-status")
	line("")
	r.status(line)
	line("--%s", boundary)
	line("Content-Type: text/rfc822-headers; charset=utf-8")
	line("Content-Transfer-Encoding: 8bit")
	line("")
	b.Write(quotable(r.header))
	line("")
	line("--%s--", boundary)
	return b.Bytes()
}

// text is for people.
func (r report) text(line func(string, ...any)) {
	if r.delayed {
		line("Your message has not reached these recipients yet. It is tried again until")
		line("%s; you need not send it again.", r.giveUp.UTC().Format(time.RFC1123Z))
	} else {
		line("Your message did not reach these recipients, and is not tried again.")
	}
	for _, o := range r.about {
		line("")
		line("<%s>:", o.rcpt)
		line("    %s", o.why.Error())
	}
}

// status is for programs (RFC 3464 §2).
func (r report) status(line func(string, ...any)) {
	line("Reporting-MTA: dns; %s", r.host)
	line("Arrival-Date: %s", r.arrived.UTC().Format(time.RFC1123Z))
	line("")
	for _, o := range r.about {
		action, status := "failed", o.why.status
		switch {
		case r.delayed:
			action = "delayed"
		case !o.why.permanent:
			status = "5.4.7" // the time is up
		}
		line("Final-Recipient: %s", addressType(o.rcpt))
		line("Action: %s", action)
		line("Status: %s", status)
		if o.why.host != "" {
			line("Remote-MTA: dns; %s", o.why.host)
		}
		if o.why.reply {
			line("Diagnostic-Code: smtp; %s", o.why.text)
		}
		if r.delayed {
			line("Will-Retry-Until: %s", r.giveUp.UTC().Format(time.RFC1123Z))
		}
		line("")
	}
}

// addressType writes an address with its type: one in UTF-8 as RFC 6533 §3 encodes it.
func addressType(address string) string {
	ascii := true
	var b strings.Builder
	for _, c := range address {
		switch {
		case c >= utf8.RuneSelf:
			ascii = false
			fmt.Fprintf(&b, `\x{%X}`, c)
		case c == '\\' || c == '+' || c == '=':
			fmt.Fprintf(&b, `\x{%X}`, c)
		default:
			b.WriteRune(c)
		}
	}
	if ascii {
		return "rfc822; " + address
	}
	return "utf-8; " + b.String()
}

// quotable returns the header of a message as far as it is complete, line by line, without what would end
// a part or is no text.
func quotable(first []byte) []byte {
	var b bytes.Buffer
	text := strings.ToValidUTF8(string(first), "?")
	for text != "" {
		line, rest, complete := strings.Cut(text, "\n")
		line = strings.TrimRight(line, "\r")
		if line == "" || !complete {
			break
		}
		text = rest
		if strings.HasPrefix(line, "--") {
			line = "- " + line
		}
		line = strings.Map(func(c rune) rune {
			if c < ' ' && c != '\t' || c == 0x7f {
				return '?'
			}
			return c
		}, line)
		b.WriteString(strings.ToValidUTF8(line[:min(len(line), maxLineBytes)], "") + "\r\n")
	}
	return b.Bytes()
}
