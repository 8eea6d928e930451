// Package inbound decides who gets mail on this host, and keeps it: the smtpd.Policy of port 25.
//
// Mail for anything@<vm>.<domain>, for a VM's aliases and for its own domains that are for mail too
// is the VM's, if its settings accept the sender; that for postmaster@, abuse@ and lodge@ of the
// domain is the operator's. All other is refused at RCPT, so no bounce is ever made. RCPT reads the
// Directory's snapshot and the size of a mailbox with a quota. With blocklists it asks DNS about
// the client, for 3 s at most, and once a minute. The end of a message asks DNS too, for the
// verdict, and rspamd if there is one.
//
// A VM that does not exist, one that does not receive, and one that does not accept the sender get
// the same reply: it shows strangers no more than that their mail is refused. (Aliases at the
// domain itself are no secret: what is none gets the 5.7.1 of relaying.) The reply is 5.1.1, by
// which senders learn to send no more; a 5.7.1 for some would show which VMs there are.
//
// A message streams to disk, without the headers that only this host may write; one Commit records
// it for all recipients, each with trace headers of its own on top, and the verdict on the sender.
//
// It never authenticates and never relays.
package inbound

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/idna"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/mail/contacts"
	"lodge/mail/journal"
	"lodge/mail/mailbox"
	"lodge/mail/notice"
	"lodge/mail/screen"
	"lodge/mail/smtpd"
	"lodge/mail/verdict"
)

// Config is what a Policy needs. Verdicts, Screen, Contacts, Arrived and Journal may be nil.
type Config struct {
	Domain    string
	Directory *gateway.Directory
	Store     *mailbox.Store
	Verdicts  *verdict.Checker // nil: senders are not checked
	Screen    *screen.Screen   // for mail of strangers; nil: all passes
	Contacts  *contacts.Book   // gets the senders that are proven; nil: they are not recorded
	// Arrived is called once for each VM that gets a message, after it is synced to disk. It must
	// return at once: 250 waits for it.
	Arrived func(gateway.ID)
	Journal *journal.Journal // gets what was received, and refused at a rate; nil: it is not recorded
	Bytes   smtpd.Rate       // that one VM gets; the zero Rate is no limit
	Logger  *slog.Logger
}

// Policy is an smtpd.Policy. Make it with New.
type Policy struct {
	config   Config
	bytes    *limit.Rates[gateway.ID]
	refusals *limit.Rates[refusedKey] // in the Journal
	accepted atomic.Uint64
}

// New returns a Policy that has accepted nothing yet.
func New(config Config) *Policy {
	config.Domain = strings.ToLower(config.Domain)
	if config.Bytes == (smtpd.Rate{}) {
		config.Bytes.PerSecond = math.Inf(1)
	}
	return &Policy{
		config: config, bytes: limit.NewRates[gateway.ID](config.Bytes.PerSecond, config.Bytes.Burst), refusals: newRefusedRates(),
	}
}

// Remove removes what is kept of a VM in memory.
func (p *Policy) Remove(id gateway.ID) { p.bytes.Remove(id) }

// Accepted is the number of messages accepted since the start, one per recipient.
func (p *Policy) Accepted() uint64 { return p.accepted.Load() }

// Sender implements smtpd.Policy: anyone may send, while the host's disk has room.
func (p *Policy) Sender(_ context.Context, _ smtpd.Client, e smtpd.Envelope) error {
	return p.config.Store.Room(e.Size)
}

// Recipient implements smtpd.Policy. A VM whose mailbox is full, or would be by the announced size,
// is refused here, so that other recipients get the message; so is a client that a blocklist has.
func (p *Policy) Recipient(ctx context.Context, c smtpd.Client, e smtpd.Envelope, to smtpd.Recipient) (gateway.Identity, error) {
	vm, err := p.mailboxOf(to.Path, e.From, time.Now())
	if err == nil {
		err = p.Fits(vm.ID, e.Size)
	}
	if err == nil {
		err = p.listed(ctx, c, vm)
	}
	if err != nil {
		p.config.Logger.Debug("recipient refused", "rcpt", to.Path.String(), "remote", c.Remote, "err", err)
		p.refused(p.Holder(to.Path).Identity, c, e, to.Path, err)
	}
	return vm, err
}

// Mailbox decides on a recipient as Recipient does, for a message that comes in another way.
func (p *Policy) Mailbox(to, from smtpd.Path) (gateway.Identity, error) {
	return p.mailboxOf(to, from, time.Now())
}

// Holder returns the VM that an address belongs to, whatever its settings; the zero VM if it is no
// VM's.
func (p *Policy) Holder(address smtpd.Path) gateway.VM {
	m, err := p.holderOf(domainOf(address), address.Local)
	if err != nil {
		return gateway.VM{}
	}
	return m
}

// IsLocal reports whether an address is at this host's domain or below it, or at a domain that a VM
// has for mail.
func (p *Policy) IsLocal(address smtpd.Path) bool {
	host := domainOf(address)
	if host == "" || host == p.config.Domain || strings.HasSuffix(host, "."+p.config.Domain) {
		return true
	}
	_, ok := p.config.Directory.ByMailDomain(host)
	return ok
}

// mailboxOf returns the VM that an address belongs to, if it accepts mail of the sender; the
// operator for those of the domain itself that RFC 2142 names, and for answers to notices.
func (p *Policy) mailboxOf(to, from smtpd.Path, now time.Time) (gateway.Identity, error) {
	host := domainOf(to)
	if to.Domain == "" || host == p.config.Domain && isOperator(to.Local) {
		return gateway.Postmaster(), nil
	}
	m, err := p.holderOf(host, to.Local)
	if err != nil {
		return gateway.Identity{}, err
	}
	if !m.Known() || m.Desired == gateway.Removed || !m.Mail.Accepts(to.Local, senderOf(from), now) {
		return gateway.Identity{}, replyUnknown()
	}
	return m.Identity, nil
}

// holderOf returns the VM that a host name below the domain, an address at the domain, or a domain
// of its own belongs to; the zero VM if there is none below the domain.
func (p *Policy) holderOf(host, local string) (gateway.VM, error) {
	if host == p.config.Domain {
		m, ok := p.config.Directory.ByAlias(gateway.PlainLocal(local) + "@")
		if !ok {
			return gateway.VM{}, replyRelay()
		}
		return m, nil
	}
	name, ok := strings.CutSuffix(host, "."+p.config.Domain)
	if !ok || name == "" {
		if m, ok := p.config.Directory.ByMailDomain(host); ok {
			return m, nil
		}
		return gateway.VM{}, replyRelay()
	}
	m, ok := p.config.Directory.ByName(name)
	if !ok {
		m, _ = p.config.Directory.ByAlias(name)
	}
	return m, nil
}

// Address returns an address as settings have them: in lower case and A-labels.
func Address(path smtpd.Path) string { return senderOf(path) }

// senderOf returns an address as gateway.MailSettings has senders.
func senderOf(from smtpd.Path) string {
	if from.Domain == "" {
		return ""
	}
	return strings.ToLower(from.Local) + "@" + domainOf(from)
}

func isOperator(local string) bool {
	return slices.ContainsFunc([]string{"postmaster", "abuse", notice.Local}, func(name string) bool { return strings.EqualFold(local, name) })
}

// domainOf returns the domain in lower case and A-labels (RFC 5891), without a final dot.
func domainOf(to smtpd.Path) string {
	host := strings.TrimSuffix(strings.ToLower(to.Domain), ".")
	if ascii, err := idna.Lookup.ToASCII(host); err == nil && !to.ASCII() {
		return ascii
	}
	return host
}

// StillExist refuses a message whose recipients have changed between RCPT and its end: a VM was
// removed, or an alias or a domain of it, which may be another VM's now.
func (p *Policy) StillExist(to []smtpd.Recipient) error {
	for _, r := range to {
		if r.VM == gateway.Postmaster() {
			continue
		}
		if m := p.Holder(r.Path); m.ID != r.VM.ID || m.Desired == gateway.Removed {
			return replyUnknown()
		}
	}
	return nil
}

func replyUnknown() error {
	return smtpd.Reply{Code: 550, Status: "5.1.1", Text: "User unknown, or it does not accept mail from you"}
}

func replyRelay() error {
	return smtpd.Reply{Code: 550, Status: "5.7.1", Text: "Relay access denied"}
}

// Fits fails with a Reply if the VM's mailbox is full, or would be by a message of that many bytes,
// or if the VM cannot get them now.
func (p *Policy) Fits(vm gateway.ID, bytes int64) error {
	if err := p.mayGet(vm, bytes); err != nil {
		return err
	}
	return BoxReply(p.config.Store.Fits(vm, bytes))
}

// BoxReply turns the error of a mailbox above its quota into a Reply (RFC 3463: X.2.2), and that of
// one that is held back for a checkpoint (X.3.2). Others stay.
func BoxReply(err error) error {
	switch {
	case mailbox.OverQuota(err):
		return smtpd.Reply{Code: 452, Status: "4.2.2", Text: "Mailbox full"}
	case mailbox.Held(err):
		return smtpd.Reply{Code: 451, Status: "4.3.2", Text: "System not accepting network messages, try again later"}
	}
	return err
}

// Begin implements smtpd.Policy.
func (p *Policy) Begin(_ context.Context, c smtpd.Client, e smtpd.Envelope) (smtpd.Message, error) {
	now := time.Now()
	m := &message{policy: p, client: c, envelope: e, begun: now}
	staged, err := p.config.Store.Stage()
	if err != nil {
		m.log().Warn("message not accepted", "status", smtpd.ReplyTo(err).Code, "err", err)
		m.refused(err)
		return nil, err
	}
	m.staged, m.filter = staged, verdict.NewFilter(staged, p.config.Domain)
	return m, nil
}
