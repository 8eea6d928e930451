package verdict

import (
	"strings"

	"blitiri.com.ar/go/spf"
)

// spfDomain returns the domain that SPF is about (RFC 7208 §2.4), and whether it is that of HELO. It is
// empty if that is no host name, such as an address literal.
func spfDomain(m Message) (domain string, byHelo bool) {
	if m.Domain == "" {
		return hostName(m.Helo), true
	}
	return hostName(m.Domain), false
}

// spf checks whether the client's address may send for domain.
func (r *lookup) spf(m Message, domain string) Result {
	if domain == "" || !strings.Contains(domain, ".") || !m.Remote.IsValid() {
		return None
	}
	local := "postmaster" // RFC 7208 §4.3
	if isAtom(m.From) {
		local = m.From // the library splits at the first @, so no quoted one
	}
	// The error is the reason, also of a pass.
	result, _ := spf.CheckHostWithSender(m.Remote.Unmap().AsSlice(), m.Helo, local+"@"+domain, spf.WithContext(r.ctx), spf.WithResolver(r))
	return Result(result) // the library has the words of RFC 8601
}

// isAtom reports whether a local part needs no quotes.
func isAtom(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`()<>[]:;@\,"%`, c) })
}
