package submit

import (
	"fmt"
	"math"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/mail/smtpd"
)

// Rates bound what VMs send. A VM alone cannot use up what all have: it has far less.
type Rates struct {
	Messages, AllMessages     smtpd.Rate // of a VM, and of all VMs
	Recipients, AllRecipients smtpd.Rate
	Bytes                     smtpd.Rate // of a VM, counted once for each recipient
}

// DefaultRates let a VM send what a busy service does, and a host not be taken for a source of spam.
func DefaultRates() Rates {
	return Rates{
		Messages: smtpd.Rate{PerSecond: 0.5, Burst: 200}, AllMessages: smtpd.Rate{PerSecond: 20, Burst: 4000},
		Recipients: smtpd.Rate{PerSecond: 1, Burst: 500}, AllRecipients: smtpd.Rate{PerSecond: 40, Burst: 10_000},
		Bytes: smtpd.Rate{PerSecond: 64 << 10, Burst: 2 << 30},
	}
}

// DefaultLimits are those of SMTP on taps. A client there is a VM, and no stranger: nothing waits for it to
// speak too early, and how often it may send is in Rates.
func DefaultLimits() smtpd.Limits {
	l := smtpd.DefaultLimits()
	l.PerPeer, l.PerNet, l.Greet = 50, 50, 0
	l.Rates.Conns = smtpd.Rate{PerSecond: 50, Burst: 500}
	l.Rates.Messages = smtpd.Rate{PerSecond: 100, Burst: 2000}
	return l
}

// rates has the token buckets of each VM, and those of all.
type rates struct {
	messages, recipients buckets
	sent                 *limit.Rates[gateway.ID] // bytes
	most                 int64                    // that a bucket of these holds: one message is to be had once
}

type buckets struct {
	own *limit.Rates[gateway.ID]
	all *limit.Rates[struct{}]
}

func newRates(r Rates) *rates {
	return &rates{
		newBuckets(r.Messages, r.AllMessages), newBuckets(r.Recipients, r.AllRecipients),
		limit.NewRates[gateway.ID](r.Bytes.PerSecond, r.Bytes.Burst), int64(r.Bytes.Burst),
	}
}

func newBuckets(own, all smtpd.Rate) buckets {
	return buckets{limit.NewRates[gateway.ID](own.PerSecond, own.Burst), limit.NewRates[struct{}](all.PerSecond, all.Burst)}
}

// message takes a message of a VM, or returns errTooMany.
func (r *rates) message(id gateway.ID, now time.Time) error {
	return r.messages.take("messages", id, now)
}

// recipient takes a recipient of a VM, or returns errTooMany.
func (r *rates) recipient(id gateway.ID, now time.Time) error {
	return r.recipients.take("recipients", id, now)
}

// bytes takes bytes of a VM, or returns errTooMany.
func (r *rates) bytes(id gateway.ID, n int64, now time.Time) error {
	if wait, _, ok := r.sent.ReserveN(id, int(min(n, r.most)), now, 0); !ok {
		return tooMany("bytes from this VM", wait)
	}
	return nil
}

func (r *rates) remove(id gateway.ID) {
	r.sent.Remove(id)
	r.messages.own.Remove(id)
	r.recipients.own.Remove(id)
}

// take takes one token of the VM and one of all, or none.
func (b buckets) take(what string, id gateway.ID, now time.Time) error {
	wait, undo, ok := b.own.Reserve(id, now, 0)
	if !ok {
		return tooMany(what+" from this VM", wait)
	}
	if wait, _, ok := b.all.Reserve(struct{}{}, now, 0); !ok {
		undo()
		return tooMany(what+" from all VMs of the host", wait)
	}
	return nil
}

func tooMany(what string, wait time.Duration) error {
	return errTooMany{what, time.Duration(math.Ceil(wait.Seconds())) * time.Second}
}

// errTooMany is a refusal that ends by itself.
type errTooMany struct {
	what string
	wait time.Duration
}

// Error implements error.
func (e errTooMany) Error() string { return e.Unwrap().Error() }

// Unwrap returns the Reply.
func (e errTooMany) Unwrap() error {
	return smtpd.Reply{Code: 450, Status: "4.7.1", Text: fmt.Sprintf("Too many %s, try again in %.0f s", e.what, e.wait.Seconds())}
}
