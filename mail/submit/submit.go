// Package submit takes in the mail that VMs send: it is the smtpd.Policy of the ports 25 and 587 on taps,
// and the handler of POST /lodge/v1/mail. There is no password: the tap is the identity.
//
// A VM sends from its own addresses alone: anything@<vm>.<domain>, its aliases and its own domains for mail,
// in the envelope and in the header. Recipients at this host's names are decided on like mail from outside (package inbound), and
// get the message straight into their mailbox; it never leaves the host. Others are the Relay's. The VM's
// settings decide to whom it may write outside: see Policy.mayWrite.
//
// The life of a message: MAIL, on which the rates decide → RCPT, on which the recipient's settings or
// mayWrite do → the header is read, checked and completed (header.go) → staged on disk → one Commit for all
// mailboxes → Relay.Send for those outside → 250. If the Relay fails, the mailboxes lose the message again,
// so that the VM, which sends it again, makes no second one.
//
// What bad input gets:
//
//   - a sender, or an author in From, Sender, Resent-From or Resent-Sender, that is not the VM's: 550 5.7.1,
//     with the addresses that are;
//   - two From: 554 5.6.0; a header that cannot be read, has a NUL or is above 256 KiB: 554 5.6.0;
//   - a recipient that the VM may not write to: 550 5.7.1; one that does not exist here: 550 5.1.1;
//   - too many messages or recipients: 450 4.7.1, with the time after which one more is possible;
//   - more than one recipient of a message with the null sender: 550 5.5.3.
//
// The null sender is accepted, since mail servers in VMs make reports and automatic answers with it (RFC
// 5321 §4.5.5, RFC 3834 §3.3). It opens nothing: its author must be the VM's, its recipient is decided on
// like any other, and is alone.
//
// AUTH is not offered: a password would prove less than the tap does, and programs that are given one would
// keep it. STARTTLS is not offered either: a tap is a wire between the VM and its host.
package submit

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/gateway/people"
	"lodge/mail/contacts"
	"lodge/mail/inbound"
	"lodge/mail/journal"
	"lodge/mail/mailbox"
	"lodge/mail/relay"
	"lodge/mail/smtpd"
)

// Relay sends mail to other hosts.
type Relay interface {
	// Send returns once the message is synced to disk. KindNoSpace: there is no room for it, now.
	Send(ctx context.Context, m relay.Message) (queueID string, err error)
}

// Config is what a Policy needs. All fields but Relay, People, Arrived and Journal must be set.
type Config struct {
	Domain          string
	Directory       *gateway.Directory
	Inbound         *inbound.Policy // decides on recipients of this host
	Store           *mailbox.Store
	Contacts        *contacts.Book
	People          *people.Book // nil: nobody is in it
	Relay           Relay        // nil: nothing leaves the host
	MaxMessageBytes int64        // of a message that is posted; smtpd has its own
	Rates           Rates
	Arrived         func(gateway.ID) // see inbound.Config
	Journal         *journal.Journal // gets what was refused, and what other VMs get; nil: it is not recorded
	Logger          *slog.Logger
}

// Policy is an smtpd.Policy and an http.Handler. Make it with New.
type Policy struct {
	config Config
	rates  *rates
	posts  *limit.Limit[gateway.ID]
	now    func() time.Time
}

// New returns a Policy that has taken in nothing yet.
func New(config Config) *Policy {
	config.Domain = strings.ToLower(config.Domain)
	return &Policy{
		config: config, rates: newRates(config.Rates), posts: limit.New[gateway.ID](maxPostsPerVM, maxPosts), now: time.Now,
	}
}

// Remove removes what is kept of a VM in memory.
func (p *Policy) Remove(id gateway.ID) { p.rates.remove(id) }

// Posting is how many requests are under way.
func (p *Policy) Posting() int {
	_, all := p.posts.Held(gateway.ID{})
	return all
}

// vm returns the record of who is at the other end, or a Reply.
func (p *Policy) vm(c smtpd.Client) (gateway.VM, error) {
	m, ok := p.config.Directory.ByID(c.VM.ID)
	if !c.VM.Known() || !ok || m.Desired == gateway.Removed {
		return gateway.VM{}, smtpd.Reply{Code: 550, Status: "5.7.1", Text: "Only VMs of this host can send mail here, on their own network interface"}
	}
	return m, nil
}

// Sender implements smtpd.Policy.
func (p *Policy) Sender(_ context.Context, c smtpd.Client, e smtpd.Envelope) error {
	m, err := p.vm(c)
	if err != nil {
		return err
	}
	if from := p.complete(m, e.From); from != (smtpd.Path{}) && !p.owns(m, from) {
		err = p.replyForged(m, "Sender address rejected")
	} else {
		err = p.rates.message(m.ID, p.now())
	}
	if err != nil {
		p.refused(m, e.From, "", err)
	}
	return err
}

// refused records in the VM's log that its mail is refused.
func (p *Policy) refused(m gateway.VM, from smtpd.Path, to string, err error) {
	p.config.Journal.Add(m.ID, gateway.MailEvent{Kind: gateway.MailRefused, From: from.String(), To: to, Remote: m.Addr.String(), Reply: inbound.Told(err)})
}

// Recipient implements smtpd.Policy.
func (p *Policy) Recipient(_ context.Context, c smtpd.Client, e smtpd.Envelope, to smtpd.Recipient) (gateway.Identity, error) {
	m, err := p.vm(c)
	if err != nil {
		return gateway.Identity{}, err
	}
	vm, err := p.recipient(m, p.complete(m, e.From), p.complete(m, to.Path), e)
	if err != nil {
		p.config.Logger.Debug("recipient of a VM refused", gateway.LogVM(m.Identity), "rcpt", to.Path.String(), "err", err)
		p.refused(m, e.From, to.Path.String(), err)
	}
	return vm, err
}

// recipient decides on the address to, for a message that has an envelope already.
func (p *Policy) recipient(m gateway.VM, from, to smtpd.Path, e smtpd.Envelope) (gateway.Identity, error) {
	if from == (smtpd.Path{}) && len(e.To) > 0 {
		return gateway.Identity{}, smtpd.Reply{Code: 550, Status: "5.5.3", Text: "A message with the null sender has one recipient alone"}
	}
	var vm gateway.Identity
	var err error
	if p.config.Inbound.IsLocal(to) {
		if vm, err = p.local(m, from, to); err == nil {
			err = p.config.Inbound.Fits(vm.ID, e.Size)
		}
	} else {
		err = p.mayWrite(m, to)
	}
	if err != nil {
		return gateway.Identity{}, err
	}
	return vm, p.rates.recipient(m.ID, p.now())
}

// local decides on an address of this host.
func (p *Policy) local(m gateway.VM, from, to smtpd.Path) (gateway.Identity, error) {
	vm, err := p.config.Inbound.Mailbox(to, from)
	switch {
	case err != nil && smtpd.ReplyTo(err).Status == "5.7.1": // an address at the domain itself that is nobody's
		return gateway.Identity{}, smtpd.Reply{Code: 550, Status: "5.1.1", Text: "User unknown, or it does not accept mail from you"}
	case err != nil:
		return gateway.Identity{}, err
	case m.Mail.SendTo == gateway.SendToNobody && vm.ID != m.ID:
		return gateway.Identity{}, replyNobody(m)
	}
	return vm, nil
}

// mayWrite decides on an address outside, by the VM's settings. By default it is one of a person who may
// use the VM or open one of its pages, or of somebody who has written to the VM: a program that somebody
// else runs in it can annoy nobody else with it, and not spoil the host's name.
func (p *Policy) mayWrite(m gateway.VM, to smtpd.Path) error {
	address := inbound.Address(to)
	switch {
	case m.Mail.SendTo == gateway.SendToNobody:
		return replyNobody(m)
	case p.config.Relay == nil:
		return smtpd.Reply{
			Code: 550, Status: "5.7.1",
			Text: "Mail to the outside is not set up on this host: VMs can write to names below " + p.config.Domain + " alone",
		}
	case m.Mail.SendTo == gateway.SendToAnyone || p.isPerson(m, address):
		return nil
	case m.Mail.SendTo != gateway.SendToKnown: // of a later Lodge
		return replyNobody(m)
	}
	known, err := p.config.Contacts.HasWritten(m.ID, address, p.now())
	if err != nil {
		return err
	}
	if !known {
		return smtpd.Reply{Code: 550, Status: "5.7.1", Text: fmt.Sprintf(
			"%s may write to its people, and to who wrote to it in %d days with a passed SPF or DKIM; an owner opens more: lodge mail set %s --send-to anyone",
			m.Name, contacts.Life/(24*time.Hour), m.Name)}
	}
	return nil
}

// isPerson reports whether an address is that of an owner, or of who may use the VM or open a page of it.
func (p *Policy) isPerson(m gateway.VM, address string) bool {
	address, err := people.ParseAddress(address)
	if err != nil || p.config.People == nil {
		return false
	}
	person, ok := p.config.People.ByMail(address)
	if !ok {
		return false
	}
	_, ok = p.config.People.FirstPort(person.ID, m)
	return ok
}

func replyNobody(m gateway.VM) error {
	return smtpd.Reply{Code: 550, Status: "5.7.1", Text: fmt.Sprintf(
		"%s may not send mail; an owner of the host changes it: lodge mail set %s --send-to known", m.Name, m.Name)}
}

// Begin implements smtpd.Policy.
func (p *Policy) Begin(_ context.Context, c smtpd.Client, e smtpd.Envelope) (smtpd.Message, error) {
	m, err := p.vm(c)
	if err != nil {
		return nil, err
	}
	return p.begin(m, c.Protocol(e.UTF8), c.Helo, e)
}

// begin begins a message that came in by a protocol.
func (p *Policy) begin(m gateway.VM, protocol, helo string, e smtpd.Envelope) (*message, error) {
	staged, err := p.config.Store.Stage()
	if err != nil {
		p.config.Logger.Warn("message of a VM not accepted", gateway.LogVM(m.Identity), "err", err)
		return nil, err
	}
	return newMessage(p, m, protocol, helo, e, staged), nil
}
