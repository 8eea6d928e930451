package inbound

import (
	"errors"
	"net/netip"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/mail/smtpd"
)

// The rate at which what one net is refused gets into the log of one VM. It is above what a person reads, and
// below what would displace the refusals of others there: a client can have some hundred a second.
const (
	refusedPerSecond = 1. / 60
	refusedBurst     = 20
)

// refusedKey is a VM, and the net of a client or another VM.
type refusedKey struct {
	vm   gateway.ID
	peer gateway.Peer
}

func newRefusedRates() *limit.Rates[refusedKey] {
	return limit.NewRates[refusedKey](refusedPerSecond, refusedBurst)
}

// refused records mail that a recipient does not get, with the reply that the sender got, unless there is too
// much of it. What is for no VM is in the operator's log.
func (p *Policy) refused(vm gateway.Identity, c smtpd.Client, e smtpd.Envelope, to smtpd.Path, err error) {
	p.refusedAt(time.Now(), vm, c, e, to, err)
}

func (p *Policy) refusedAt(now time.Time, vm gateway.Identity, c smtpd.Client, e smtpd.Envelope, to smtpd.Path, err error) {
	if m, ok := p.config.Directory.ByID(vm.ID); !ok || m.Desired == gateway.Removed {
		vm = gateway.Postmaster()
	}
	if !p.refusals.Take(refusedKey{vm.ID, peerOf(c)}, now) {
		return
	}
	p.config.Journal.Add(vm.ID, gateway.MailEvent{
		Kind: gateway.MailRefused, From: e.From.String(), To: to.String(), Remote: c.Remote, Bytes: e.Size, Reply: Told(err),
	})
}

// peerOf is the VM that a client is, or the net around its address.
func peerOf(c smtpd.Client) gateway.Peer {
	if c.VM.Known() {
		return gateway.Peer{VM: c.VM.ID}
	}
	remote, _ := netip.ParseAddr(c.Remote) // the zero Addr has the zero Peer
	return gateway.PeerAt(remote).Around()
}

// Told is the reply that a sender gets for an error of a Policy.
func Told(err error) string {
	if errors.Is(err, smtpd.ErrCut) {
		return err.Error()
	}
	return smtpd.ReplyTo(err).Error()
}
