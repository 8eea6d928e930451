// Package verdict checks whether a message comes from the domain that it names: SPF (RFC 7208), DKIM
// (RFC 6376) and DMARC (RFC 7489), written as Authentication-Results (RFC 8601).
//
// A message passes a Filter on its way to disk, which removes the headers that only this host may
// write. Then Check looks at it once, whatever the number of recipients: SPF, the signatures and the
// domain's policy at the same time, within 5 s, of which DNS has 4. A Verdict is the result. Package
// inbound decides what follows from it.
//
// What strangers can make large, and what it gets:
//
//   - signatures after the first 5: not checked;
//   - a header above 128 KiB, or one that takes DKIM's library too long: permerror for all signatures;
//   - 64 KiB of white space in a row in the body: the same, since it is held in memory;
//   - a key record above 2 KiB, which RSA keys above 11,000 bits have: permerror;
//   - more than 10 lookups or 2 void ones by SPF: permerror (RFC 7208 §4.6.4);
//   - more than 100 questions of SPF for one message, more than 32 at once about one domain, DNS that does
//     not answer, answers with junk or too slowly: temperror.
//
// A message that comes in on loopback was passed on by a tunnel, a proxy or a program of the host, and
// one of a VM's tap is no stranger's. Their address is evidence for no domain, so SPF is left out,
// and DMARC can pass by a signature, but not fail.
//
// It never refuses a message, and never changes a body.
package verdict

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
)

// Result is one of RFC 8601 §2.7.
type Result string

// Results.
const (
	Pass      Result = "pass"
	Fail      Result = "fail"
	SoftFail  Result = "softfail"
	Neutral   Result = "neutral"
	None      Result = "none" // there was nothing to check
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// Policy is what a domain asks for when DMARC fails (RFC 7489 §6.3).
type Policy string

// Policies.
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// Verdict is what is known about where a message comes from. Domains are host names in lower case and
// A-labels, or empty.
type Verdict struct {
	SPF       Result
	SPFDomain string // of MAIL FROM; of HELO for the null sender
	ByHelo    bool   // SPFDomain is of HELO
	DKIM      []Signature
	DMARC     Result
	From      string // domain of the From header
	Policy    Policy // what that asks for this message, if DMARC fails: sp and pct are applied
	Aligned   string // domain by which DMARC passed
	// Proven: SPF or a signature passed for From's domain, in the sense of DMARC; in its relaxed mode if
	// that domain has no record.
	Proven bool
	local  bool
}

// Signature is the verdict on one DKIM-Signature, in the order of the header.
type Signature struct {
	Result Result
	Domain string // d=
	Reason string // of a Result other than Pass: printable ASCII
}

// Rejected reports whether the domain in From asks for the refusal of this message. After a temporary
// error it never does.
func (v Verdict) Rejected() bool { return v.DMARC == Fail && v.Policy == PolicyReject }

// Authentic reports whether SPF or a signature passed, for whatever domain.
func (v Verdict) Authentic() bool {
	return v.SPF == Pass || slices.ContainsFunc(v.DKIM, func(s Signature) bool { return s.Result == Pass })
}

// Message is what Check looks at.
type Message struct {
	Local   bool       // of this host or a VM: see the package
	Remote  netip.Addr // of the client
	Helo    string
	From    string    // envelope sender, local part and domain; both empty for the null sender
	Domain  string    // of the envelope sender
	Header  Header    // of the Filter
	Content io.Reader // the message as it came in: Filter.Original
}

// Checker checks messages. It is safe for concurrent use; make it with New.
type Checker struct {
	resolver *Resolver
	dice     func() int // 0 to 99, for pct
}

// New returns a Checker that asks a resolver.
func New(r *Resolver) *Checker { return &Checker{resolver: r, dice: dice} }

// Check returns within 5 s. What fails is an error in the Verdict. It may stop reading Content early.
func (c *Checker) Check(ctx context.Context, m Message) Verdict {
	ctx, cancel := context.WithTimeout(ctx, c.resolver.patience.check)
	defer cancel()
	lookups, stop := context.WithTimeout(ctx, c.resolver.patience.answer)
	defer stop()
	r := &lookup{resolver: c.resolver, ctx: lookups}
	senders := &lookup{resolver: c.resolver, ctx: lookups} // counts apart: the sender chooses SPF's questions
	v := Verdict{SPF: None, DMARC: None, From: m.Header.From, local: m.Local}
	found := policy{Result: TempError} // unless it is found
	var group sync.WaitGroup
	run := func(f func()) {
		group.Go(func() {
			defer func() { _ = recover() }() // a library's panic is a temporary error
			f()
		})
	}
	if !m.Local {
		v.SPFDomain, v.ByHelo = spfDomain(m)
		v.SPF = TempError
		run(func() { v.SPF = senders.spf(m, v.SPFDomain) })
	}
	if m.Header.signatures > 0 {
		v.DKIM = []Signature{{Result: TempError, Reason: "not checked"}}
		run(func() { v.DKIM = r.dkim(ctx, m) })
	}
	if m.Header.From != "" && (!m.Local || m.Header.signatures > 0) {
		run(func() { found = r.policy(m.Header.From) })
	} else {
		found.Result = None
	}
	group.Wait()
	v.decide(found, c.dice)
	return v
}
