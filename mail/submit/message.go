package submit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/mail/inbound"
	"lodge/mail/mailbox"
	"lodge/mail/relay"
	"lodge/mail/smtpd"
	"lodge/mail/verdict"
)

// relayTime is how long the Relay has for one message.
const relayTime = 2 * time.Minute

// message is an smtpd.Message. Its body is staged on disk as it comes in.
type message struct {
	policy   *Policy
	vm       gateway.VM
	protocol string // as in Received
	helo     string
	from     smtpd.Path        // complete
	utf8     bool              // its header may have UTF-8
	local    []smtpd.Recipient // complete, none twice; those of this host
	outside  []string
	split    splitter
	header   []byte // as it goes out
	author   string // the domain in From, once the message has ended; empty if there are several
	staged   *mailbox.Staged
	filter   *verdict.Filter
	begun    time.Time
}

func newMessage(p *Policy, m gateway.VM, protocol, helo string, e smtpd.Envelope, staged *mailbox.Staged) *message {
	msg := &message{
		policy: p, vm: m, protocol: protocol, helo: helo, from: p.complete(m, e.From), utf8: e.UTF8,
		staged: staged, filter: verdict.NewFilter(staged, p.config.Domain), begun: p.now(),
	}
	for _, to := range e.To {
		to.Path = p.complete(m, to.Path)
		switch {
		case to.VM.Known() && !slices.ContainsFunc(msg.local, func(r smtpd.Recipient) bool { return r.Path == to.Path }):
			msg.local = append(msg.local, to)
		case !to.VM.Known() && !slices.Contains(msg.outside, to.Path.String()):
			msg.outside = append(msg.outside, to.Path.String())
		}
	}
	return msg
}

// Write implements smtpd.Message.
func (m *message) Write(p []byte) (int, error) {
	before := m.split.done
	rest, err := m.split.write(p)
	if err != nil {
		return 0, err
	}
	if m.split.done && !before {
		if err := m.writeHeader(); err != nil {
			return 0, err
		}
	}
	if _, err := m.filter.Write(rest); err != nil {
		return 0, refusal(err)
	}
	return len(p), nil
}

// writeHeader writes the header, and the empty line behind it.
func (m *message) writeHeader() (err error) {
	m.header, err = m.policy.rewrite(m.split.text, rewriting{m.vm, m.from, mailbox.NewQueueID(m.begun), m.begun})
	if err != nil {
		return err
	}
	_, err = m.filter.Write(append(slices.Clip(m.header), "\r\n"...))
	return refusal(err)
}

// Commit implements smtpd.Message. It returns once the message is synced to disk, for all recipients or
// for none: see deliver.
func (m *message) Commit() (string, error) {
	if !m.split.done {
		rest := m.split.end()
		if err := m.writeHeader(); err != nil {
			return "", err
		}
		if _, err := m.filter.Write(rest); err != nil {
			return "", refusal(err)
		}
	}
	header, err := m.filter.End()
	if err != nil {
		return "", refusal(err)
	}
	m.author = header.From
	if err := m.stillExist(); err != nil {
		return "", err
	}
	letters := m.letters(m.policy.now())
	if err := m.policy.rates.bytes(m.vm.ID, m.filter.Size()*int64(len(letters)+len(m.outside)), m.policy.now()); err != nil {
		return "", err
	}
	id, err := m.deliver(letters)
	if err != nil {
		return "", err
	}
	m.staged.Remove()
	m.logSent(letters, id)
	m.arrived()
	if len(letters) > 0 {
		id = letters[0].QueueID
	}
	return id, nil
}

// deliver commits the message to the mailboxes, once the Relay has found nothing wrong with it, then to the
// Relay's queue. If the disk fails in between, the mailboxes lose it again. After a crash in between, or if
// that fails too, some have it; the VM, which got no reply, sends it again, and they have it twice. In the
// other order that would be people on the internet.
func (m *message) deliver(letters []mailbox.Letter) (queueID string, err error) {
	committed := false
	commit := func() error {
		if len(letters) == 0 {
			return nil
		}
		undo, err := m.policy.config.Inbound.TakeBytes(letters, m.filter.Size())
		if err != nil {
			return err
		}
		if err = m.policy.config.Store.Commit(m.staged, letters); err != nil {
			undo()
		}
		committed = err == nil
		return inbound.BoxReply(err)
	}
	if len(m.outside) == 0 {
		return "", commit()
	}
	ctx, cancel := context.WithTimeout(context.Background(), relayTime)
	defer cancel()
	head := m.received("") + "\r\n"
	queueID, err = m.policy.config.Relay.Send(ctx, relay.Message{
		VM: m.vm.Identity, From: m.from.String(), To: m.outside, UTF8: m.needsUTF8(), Ready: commit, Signer: m.signer(),
		Body: io.MultiReader(strings.NewReader(head), io.NewSectionReader(m.staged, 0, m.filter.Size())),
	})
	switch {
	case err == nil:
		return queueID, nil
	case committed:
		return "", errors.Join(err, m.takeBack(letters))
	case gateway.KindOf(err) == gateway.KindInvalid: // it stays so
		return "", smtpd.Reply{Code: 554, Status: "5.6.0", Text: err.Error()}
	default:
		return "", err
	}
}

// needsUTF8 reports whether the header or an address has UTF-8 (RFC 6531).
func (m *message) needsUTF8() bool {
	addresses := strings.Join(append(m.outside[:len(m.outside):len(m.outside)], m.from.String()), "")
	return m.utf8 && !isASCII(m.header) || !isASCII([]byte(addresses))
}

// takeBack removes the letters from the mailboxes.
func (m *message) takeBack(letters []mailbox.Letter) error {
	var errs []error
	for _, l := range letters {
		box, err := m.policy.config.Store.Box(l.VM)
		if err == nil {
			var e mailbox.Entry
			if e, err = box.Find(l.QueueID); err == nil {
				err = box.Expunge([]uint32{e.UID})
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stillExist refuses a message of or for a VM that was removed since MAIL and RCPT, or whose sender or
// recipient is at a name that is the VM's no more.
func (m *message) stillExist() error {
	now, err := m.policy.vm(smtpd.Client{VM: m.vm.Identity})
	if err == nil && m.from != (smtpd.Path{}) && !m.policy.owns(now, m.from) {
		err = m.policy.replyForged(now, "Sender address rejected")
	}
	if err != nil {
		return err
	}
	return m.policy.config.Inbound.StillExist(m.local)
}

// signer is the domain that signs the message: one that the VM has for mail if From is there, so that DMARC's
// alignment holds; else the host's.
func (m *message) signer() string {
	holder, ok := m.policy.config.Directory.ByMailDomain(m.author)
	if ok && holder.ID == m.vm.ID {
		return m.author
	}
	return m.policy.config.Domain
}

// letters are the copies for mailboxes of this host, in the order of the recipients.
func (m *message) letters(now time.Time) []mailbox.Letter {
	subject := inbound.Subject(m.header[:min(len(m.header), 32<<10)])
	var all []mailbox.Letter
	for _, to := range m.local {
		id := mailbox.NewQueueID(now)
		rcpt := to.Path.String()
		all = append(all, mailbox.Letter{
			VM: to.VM.ID, QueueID: id, From: m.from.String(), Rcpt: rcpt, Subject: subject, Received: now,
			Head: fmt.Sprintf("Return-Path: <%s>\r\nDelivered-To: %s\r\nX-Lodge-Vm: %s\r\n%s\r\n",
				m.from, rcpt, m.vm.Name, m.received("\r\n\tid "+id+" for <"+rcpt+">")),
		})
	}
	return all
}

// received is a Received header without its line end (RFC 5321 §4.4). It shows no address of a guest.
func (m *message) received(more string) string {
	return fmt.Sprintf("Received: from %s (%s)\r\n\tby %s with %s%s; %s", inbound.Printable(m.helo), m.policy.host(m.vm),
		m.policy.config.Domain, m.protocol, more, m.policy.now().Format(time.RFC1123Z))
}

// arrived reports the message, once for each VM.
func (m *message) arrived() {
	if m.policy.config.Arrived == nil {
		return
	}
	reported := map[gateway.ID]bool{}
	for _, to := range m.local {
		if !reported[to.VM.ID] && to.VM != gateway.Postmaster() {
			reported[to.VM.ID] = true
			m.policy.config.Arrived(to.VM.ID)
		}
	}
}

// logSent writes a line for each recipient; vm is the sender.
func (m *message) logSent(letters []mailbox.Letter, relayed string) {
	log := m.log().With("bytes", m.filter.Size())
	for _, l := range letters {
		log.Info("message of a VM accepted", "rcpt", l.Rcpt, "queue_id", l.QueueID)
		event := gateway.MailEvent{Kind: gateway.MailReceived, QueueID: l.QueueID, From: l.From, To: l.Rcpt, Remote: m.vm.Addr.String(), Bytes: m.filter.Size()}
		m.policy.config.Journal.Add(l.VM, event)
		if l.VM != m.vm.ID {
			event.Kind, event.Remote = gateway.MailSent, ""
			m.policy.config.Journal.Add(m.vm.ID, event)
		}
	}
	for _, to := range m.outside {
		log.Info("message of a VM accepted", "rcpt", to, "queue_id", relayed)
	}
}

// Abort implements smtpd.Message.
func (m *message) Abort(err error) {
	m.staged.Remove()
	m.log().Warn("message of a VM not accepted", "status", smtpd.ReplyTo(err).Code, "err", err)
	for _, to := range m.local {
		m.policy.refused(m.vm, m.from, to.Path.String(), err)
	}
	for _, to := range m.outside {
		m.policy.refused(m.vm, m.from, to, err)
	}
}

func (m *message) log() *slog.Logger {
	return m.policy.config.Logger.With(gateway.LogVM(m.vm.Identity), "from", m.from.String(), "duration", m.policy.now().Sub(m.begun))
}

// refusal turns what is wrong with a header into a Reply.
func refusal(err error) error {
	if bad, ok := errors.AsType[verdict.Refused](err); ok {
		return smtpd.Reply{Code: 554, Status: "5.6.0", Text: bad.Error()}
	}
	return err // it is replied to by its kind
}

// isASCII reports whether a text needs no UTF-8.
func isASCII(text []byte) bool {
	return bytes.IndexFunc(text, func(c rune) bool { return c > '~' }) < 0
}
