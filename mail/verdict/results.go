package verdict

import (
	"strings"

	"github.com/emersion/go-msgauth/authres"
)

// Field returns the Authentication-Results header (RFC 8601) in the name of authservID, with its CRLF.
func (v Verdict) Field(authservID string) string {
	var all []authres.Result
	if !v.local {
		r := &authres.SPFResult{Value: authres.ResultValue(v.SPF)}
		if v.ByHelo {
			r.Helo = v.SPFDomain
		} else {
			r.From = v.SPFDomain
		}
		all = append(all, r)
	}
	for _, s := range v.DKIM {
		all = append(all, &authres.DKIMResult{Value: authres.ResultValue(s.Result), Reason: s.Reason, Domain: s.Domain})
	}
	if len(v.DKIM) == 0 {
		all = append(all, &authres.DKIMResult{Value: authres.ResultValue(None)})
	}
	dmarc := &authres.DMARCResult{Value: authres.ResultValue(v.DMARC), From: v.From}
	if v.DMARC == Fail {
		dmarc.Reason = "policy " + string(v.Policy)
	}
	lines := strings.Split(authres.Format(authservID, append(all, dmarc)), "; ") // no value has a semicolon
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return "Authentication-Results: " + strings.Join(lines, ";\r\n\t") + "\r\n"
}
