package inbound

import (
	"time"

	"lodge/gateway"
	"lodge/mail/mailbox"
	"lodge/mail/smtpd"
)

// DefaultBytes is what one VM can get: 1 GiB at once, and some 5 GiB a day. Whoever may write to a VM could fill the
// host's disk otherwise, up to its reserve, before anybody sees it.
func DefaultBytes() smtpd.Rate { return smtpd.Rate{PerSecond: 64 << 10, Burst: 1 << 30} }

func replyTooMuch() error {
	return smtpd.Reply{Code: 452, Status: "4.2.2", Text: "This mailbox has received too much mail for now, try again later"}
}

// TakeBytes takes the room of letters, whose body has that many bytes, from what their VMs can get now: for all or
// none. undo gives it back. The operator's mail has no such limit, or strangers could keep reports from the operator.
func (p *Policy) TakeBytes(letters []mailbox.Letter, body int64) (undo func(), err error) {
	var taken []func()
	undo = func() {
		for _, f := range taken {
			f()
		}
	}
	sums := map[gateway.ID]int{}
	for _, l := range letters {
		if l.VM != gateway.Postmaster().ID {
			sums[l.VM] += int(body) + len(l.Head)
		}
	}
	for vm, n := range sums {
		one, ok := p.Take(vm, int64(n))
		if !ok {
			undo()
			return nil, replyTooMuch()
		}
		taken = append(taken, one)
	}
	return undo, nil
}

// Take takes room from what a VM can get now, if there is so much. undo gives it back.
func (p *Policy) Take(vm gateway.ID, bytes int64) (undo func(), ok bool) {
	_, undo, ok = p.bytes.ReserveN(vm, int(min(bytes, int64(p.most()))), time.Now(), 0) // one with many recipients must be had once
	return undo, ok
}

// most is what a bucket holds.
func (p *Policy) most() int { return max(p.config.Bytes.Burst, 1) }

// mayGet fails with a Reply if a VM cannot get that many bytes now.
func (p *Policy) mayGet(vm gateway.ID, bytes int64) error {
	if vm == gateway.Postmaster().ID {
		return nil
	}
	_, undo, ok := p.bytes.ReserveN(vm, int(min(max(bytes, 1), int64(p.most()))), time.Now(), 0)
	if !ok {
		return replyTooMuch()
	}
	undo()
	return nil
}
