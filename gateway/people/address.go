package people

import (
	"strings"

	"golang.org/x/net/idna"

	"lodge/gateway"
)

// Limits on what is written down of people.
const (
	maxAddressBytes = 254 // RFC 5321 §4.5.3.1.3, without the angle brackets
	maxLocalBytes   = 64  // RFC 5321 §4.5.3.1.1
	maxDomainBytes  = 253 // RFC 1035 §2.3.4
	maxTeamBytes    = 57
)

const addressHint = "An address is like ada@example.com."

// ParseAddress returns a mail address in the one form in which it is kept and compared: in lower case,
// the domain in A-labels (RFC 5891), so that no two look alike but are not. It accepts a Mailbox of RFC
// 5321 §4.1.2 whose local part is a dot-string in ASCII: no quoted strings, no addresses in brackets.
func ParseAddress(text string) (string, error) {
	if len(text) > 4*maxAddressBytes { // before it is quoted in an error
		return "", gateway.Invalid("the address is longer than %d characters", maxAddressBytes).WithHint(addressHint)
	}
	local, domain, found := strings.Cut(text, "@")
	if !found || !isDotString(local) {
		return "", gateway.Invalid("not a mail address: %q", text).WithHint(addressHint + " What is before the @ has no spaces, quotes or letters with accents.")
	}
	domain, err := ParseMailDomain(domain)
	if err != nil {
		return "", err
	}
	address := strings.ToLower(local) + "@" + domain
	if len(local) > maxLocalBytes || len(address) > maxAddressBytes {
		return "", gateway.Invalid("the address has %d characters; at most %d are possible, %d of them before the @", len(address), maxAddressBytes, maxLocalBytes)
	}
	return address, nil
}

// ParseMailDomain returns the domain of mail addresses in lower case and A-labels.
func ParseMailDomain(text string) (string, error) {
	invalid := gateway.Invalid("not a domain of mail addresses: %.300q", text).WithHint("A domain is like example.com.")
	profile := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckJoiners(true), idna.StrictDomainName(true), idna.VerifyDNSLength(true))
	if len(text) > 4*maxDomainBytes {
		return "", invalid
	}
	ascii, err := profile.ToASCII(text)
	if err != nil {
		return "", invalid.Because(err)
	}
	again, err := profile.ToASCII(ascii) // another one for bytes that are not UTF-8
	if err != nil || again != ascii || len(ascii) > maxDomainBytes || strings.HasSuffix(ascii, ".") || isNumber(ascii) {
		return "", invalid
	}
	return ascii, nil
}

// isNumber reports whether the last label is a number, as in an IP address.
func isNumber(domain string) bool {
	return strings.Trim(domain[strings.LastIndexByte(domain, '.')+1:], "0123456789") == ""
}

// isDotString reports whether s is a Dot-string (RFC 5321 §4.1.2).
func isDotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for _, c := range []byte(atom) {
			if !isAtomText(c) {
				return false
			}
		}
	}
	return true
}

// isAtomText is atext of RFC 5322 §3.2.3.
func isAtomText(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// CheckTeamName checks that a team can have a name, else KindInvalid: it is never an address.
func CheckTeamName(name string) error {
	if name == "" || len(name) > maxTeamBytes || name[0] < 'a' || name[0] > 'z' || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return gateway.Invalid("not the name of a team: %.100q", name).
			WithHint("A name has 1 to %d lower-case letters, digits and dashes, and starts with a letter, such as \"devs\".", maxTeamBytes)
	}
	return nil
}
