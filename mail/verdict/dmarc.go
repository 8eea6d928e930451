package verdict

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dmarc"
	"golang.org/x/net/publicsuffix"
)

func dice() int { return rand.IntN(100) } //nolint:gosec // a sample, as RFC 7489 §6.6.4 has it

// policy is what was found at _dmarc: a record, or a Result other than Pass.
type policy struct {
	Result
	record *dmarc.Record
	parent bool // it is that of the organisational domain, and the message's is below that
}

// policy finds the policy for a domain: its own, else that of its organisational domain (RFC 7489
// §6.6.3).
func (r *lookup) policy(domain string) policy {
	found := r.policyAt(domain)
	if parent := organisation(domain); found.Result == None && parent != domain {
		found = r.policyAt(parent)
		found.parent = true
	}
	return found
}

func (r *lookup) policyAt(domain string) policy {
	record, err := dmarc.LookupWithOptions(domain, &dmarc.LookupOptions{LookupTXT: r.records})
	switch {
	case err == nil:
		return policy{Result: Pass, record: record}
	case errors.Is(err, dmarc.ErrNoPolicy):
		return policy{Result: None}
	case dmarc.IsTempFail(err):
		return policy{Result: TempError}
	default:
		return policy{Result: PermError}
	}
}

// records returns the texts that are DMARC records, for the library: none if there are several (RFC 7489
// §6.6.3).
func (r *lookup) records(name string) ([]string, error) {
	texts, err := r.LookupTXT(r.ctx, name)
	var records []string
	for _, text := range texts {
		version, _, _ := strings.Cut(text, ";")
		if strings.ReplaceAll(version, " ", "") == "v=DMARC1" {
			records = append(records, text)
		}
	}
	if len(records) > 1 {
		return nil, err
	}
	return records, err
}

// organisation returns the organisational domain (RFC 7489 §3.2); for a public suffix itself.
func organisation(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// decide completes v from what was found, once everything else is known.
func (v *Verdict) decide(found policy, dice func() int) {
	if found.record == nil {
		v.DMARC = found.Result
		v.Proven = found.Result == None && v.aligns()
		return
	}
	v.Policy = found.asked(dice)
	aligned := func(domain string, mode dmarc.AlignmentMode) bool {
		return v.aligned(domain) && (domain == v.From || mode != dmarc.AlignmentStrict)
	}
	v.DMARC = Fail
	if v.local {
		v.DMARC = None
	}
	count := func(domain string, result Result, mode dmarc.AlignmentMode) {
		switch {
		case v.DMARC == Pass || !aligned(domain, mode):
		case result == Pass:
			v.DMARC, v.Aligned, v.Proven = Pass, domain, true
		case result == TempError:
			v.DMARC = TempError // it might have passed
		}
	}
	count(v.SPFDomain, v.SPF, found.record.SPFAlignment)
	for _, s := range v.DKIM {
		if s.Domain == "" && s.Result == TempError {
			s.Domain = v.From // nothing was read: it might be anyone's
		}
		count(s.Domain, s.Result, found.record.DKIMAlignment)
	}
}

// aligned reports whether a domain is From's in DMARC's relaxed mode (RFC 7489 §3.1).
func (v *Verdict) aligned(domain string) bool {
	return domain != "" && v.From != "" && organisation(domain) == organisation(v.From)
}

// aligns reports whether SPF or a signature passed for an aligned domain.
func (v *Verdict) aligns() bool {
	return v.SPF == Pass && v.aligned(v.SPFDomain) ||
		slices.ContainsFunc(v.DKIM, func(s Signature) bool { return s.Result == Pass && v.aligned(s.Domain) })
}

// asked returns the policy for one message: that for subdomains if it has been found above, and the next
// weaker one for the messages that pct leaves out (RFC 7489 §6.6.4).
func (p policy) asked(dice func() int) Policy {
	asked := Policy(p.record.Policy)
	if sub := p.record.SubdomainPolicy; p.parent && sub != "" {
		asked = Policy(sub)
	}
	if percent := p.record.Percent; percent == nil || dice() < *percent {
		return asked
	}
	if asked == PolicyReject {
		return PolicyQuarantine
	}
	return PolicyNone
}
