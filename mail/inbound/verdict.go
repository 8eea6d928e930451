package inbound

import (
	"context"
	"errors"
	"net/netip"

	"lodge/mail/smtpd"
	"lodge/mail/verdict"
)

// judge ends the message's header and checks where the message comes from, once for all recipients. It
// returns the headers that have the verdict, or a Reply for what is refused.
//
// One reply ends a message for all its recipients. So what DMARC rejects is refused only if the owners of
// all of them want that; otherwise all get it, marked.
func (m *message) judge() (results string, err error) {
	header, err := m.filter.End()
	if err != nil {
		return "", refusal(err)
	}
	remote, _ := netip.ParseAddr(m.client.Remote) // the zero Addr has no SPF
	local := m.client.VM.Known() || remote.IsLoopback()
	var v verdict.Verdict
	if m.policy.config.Verdicts != nil {
		if v, err = m.check(header, remote, local); err != nil {
			return "", err
		}
		results = v.Field(m.policy.config.Domain)
	}
	if m.policy.config.Screen == nil || local {
		return results, nil
	}
	mark, err := m.screen(remote, v.Authentic())
	return results + mark, err
}

// check gets the verdict on the message, or a Reply.
func (m *message) check(header verdict.Header, remote netip.Addr, local bool) (verdict.Verdict, error) {
	if header.From == "" && !local { // programs of the host leave it out, or have "From: root"
		return verdict.Verdict{}, smtpd.Reply{Code: 554, Status: "5.6.0", Text: "The From header must have an address, of one domain: From: Name <user@domain> (RFC 5322 section 3.6.2)"}
	}
	v := m.policy.config.Verdicts.Check(context.Background(), verdict.Message{
		Local: local, Remote: remote, Helo: m.client.Helo,
		From: m.envelope.From.Local, Domain: m.envelope.From.Domain,
		Header: header, Content: m.filter.Original(m.staged),
	})
	if v.Rejected() && m.refuseRejected() {
		return v, smtpd.Reply{Code: 550, Status: "5.7.1", Text: "Refused by the DMARC policy of " + v.From + ": neither SPF nor DKIM passed for it"}
	}
	if v.Proven {
		m.author = header.Author
	}
	return v, nil
}

// refuseRejected is false if the operator is among the recipients: its mail has no settings.
func (m *message) refuseRejected() bool {
	for _, to := range m.envelope.To {
		if vm, ok := m.policy.config.Directory.ByID(to.VM.ID); !ok || !vm.Mail.RefuseRejected {
			return false
		}
	}
	return true
}

// refusal turns what is wrong with a header into a Reply.
func refusal(err error) error {
	if bad, ok := errors.AsType[verdict.Refused](err); ok {
		return smtpd.Reply{Code: 554, Status: "5.6.0", Text: bad.Error()}
	}
	return err // it is replied to by its kind
}
