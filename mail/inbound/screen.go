package inbound

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	"lodge/gateway"
	"lodge/mail/screen"
	"lodge/mail/smtpd"
)

// listed fails with a Reply if a blocklist has the client of a recipient. The operator gets mail of
// anybody: whoever is on a list wrongly may say so.
func (p *Policy) listed(ctx context.Context, c smtpd.Client, vm gateway.Identity) error {
	if p.config.Screen == nil || c.VM.Known() || vm == gateway.Postmaster() {
		return nil
	}
	remote, _ := netip.ParseAddr(c.Remote) // no list has the zero Addr
	l, ok := p.config.Screen.Listed(ctx, remote)
	if !ok {
		return nil
	}
	text := fmt.Sprintf("Service unavailable; Client host [%s] blocked using %s", remote, l.Zone)
	if l.Text != "" {
		text += "; " + l.Text
	}
	return smtpd.Reply{Code: 554, Status: "5.7.1", Text: text}
}

// screen decides on a stranger's message that is complete, for all its recipients. It returns the
// header that marks what may be spam, or a Reply. If the operator is among the recipients, rspamd
// refuses nothing: what it would refuse is marked, so that naming the operator too does not get it
// past the mark.
func (m *message) screen(remote netip.Addr, authentic bool) (mark string, err error) {
	s, from := m.policy.config.Screen, m.envelope.From
	var delayed, all []string
	operator := false
	for _, to := range m.envelope.To {
		all = append(all, to.Path.String())
		if to.VM == gateway.Postmaster() {
			operator = true
			continue
		}
		delayed = append(delayed, Address(to.Path))
	}
	if !authentic && s.Early(remote, Address(from), delayed, time.Now()) {
		return "", smtpd.Reply{Code: 451, Status: "4.7.1", Text: "Greylisted, try again in 5 minutes"}
	}
	advice, text := s.Advise(context.Background(), screen.Message{
		Remote: remote, Helo: m.client.Helo, From: from.String(), To: all,
		Bytes: m.filter.OriginalSize(), Content: m.filter.Original(m.staged), // what DKIM signed
	})
	switch {
	case advice == screen.Accept:
		return "", nil
	case advice == screen.Spam || operator:
		return "X-Spam: Yes\r\n", nil
	case advice == screen.Later:
		return "", smtpd.Reply{Code: 451, Status: "4.7.1", Text: cmp.Or(text, "Try again later")}
	}
	return "", smtpd.Reply{Code: 550, Status: "5.7.1", Text: cmp.Or(text, "Spam message rejected")}
}
