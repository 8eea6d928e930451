package inbound

import (
	"errors"

	"lodge/gateway"
	"lodge/mail/smtpd"
)

// refused records mail that a recipient does not get, with the reply that the sender got. What is for no VM is in
// the operator's log.
func (p *Policy) refused(vm gateway.Identity, c smtpd.Client, e smtpd.Envelope, to smtpd.Path, err error) {
	if m, ok := p.config.Directory.ByID(vm.ID); !ok || m.Desired == gateway.Removed {
		vm = gateway.Postmaster()
	}
	p.config.Journal.Add(vm.ID, gateway.MailEvent{
		Kind: gateway.MailRefused, From: e.From.String(), To: to.String(), Remote: c.Remote, Bytes: e.Size, Reply: Told(err),
	})
}

// Told is the reply that a sender gets for an error of a Policy.
func Told(err error) string {
	if errors.Is(err, smtpd.ErrCut) {
		return err.Error()
	}
	return smtpd.ReplyTo(err).Error()
}
