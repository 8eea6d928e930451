package submit

import (
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"lodge/gateway"
	"lodge/mail/smtpd"
)

// Rates bound what VMs send. A VM alone cannot use up what all have: it has far less.
type Rates struct {
	Messages, AllMessages     smtpd.Rate // of a VM, and of all VMs
	Recipients, AllRecipients smtpd.Rate
}

// DefaultRates let a VM send what a busy service does, and a host not be taken for a source of spam.
func DefaultRates() Rates {
	return Rates{
		Messages: smtpd.Rate{PerSecond: 0.5, Burst: 200}, AllMessages: smtpd.Rate{PerSecond: 20, Burst: 4000},
		Recipients: smtpd.Rate{PerSecond: 1, Burst: 500}, AllRecipients: smtpd.Rate{PerSecond: 40, Burst: 10_000},
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
	each Rates
	all  pair

	mu sync.Mutex
	by map[gateway.ID]pair
}

type pair struct{ messages, recipients *rate.Limiter }

func newRates(r Rates) *rates {
	return &rates{each: r, all: newPair(r.AllMessages, r.AllRecipients), by: map[gateway.ID]pair{}}
}

func newPair(messages, recipients smtpd.Rate) pair {
	bucket := func(r smtpd.Rate) *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst) }
	return pair{bucket(messages), bucket(recipients)}
}

// message takes a message of a VM, or returns errTooMany.
func (r *rates) message(id gateway.ID, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return take("messages", now, r.of(id).messages, r.all.messages)
}

// recipient takes a recipient of a VM, or returns errTooMany.
func (r *rates) recipient(id gateway.ID, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return take("recipients", now, r.of(id).recipients, r.all.recipients)
}

// of returns the buckets of a VM. The caller holds r.mu.
func (r *rates) of(id gateway.ID) pair {
	p, ok := r.by[id]
	if !ok {
		p = newPair(r.each.Messages, r.each.Recipients)
		r.by[id] = p
	}
	return p
}

func (r *rates) remove(id gateway.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.by, id)
}

// take takes one token of the VM and one of all, or none.
func take(what string, now time.Time, own, all *rate.Limiter) error {
	for _, bucket := range []struct {
		*rate.Limiter
		whose string
	}{{own, "this VM"}, {all, "all VMs of the host"}} {
		if bucket.TokensAt(now) < 1 {
			missing := 1 - bucket.TokensAt(now)
			return errTooMany{what + " from " + bucket.whose, time.Duration(math.Ceil(missing/float64(bucket.Limit()))) * time.Second}
		}
	}
	own.AllowN(now, 1)
	all.AllowN(now, 1)
	return nil
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
