package domains

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"lodge/gateway"
)

// special are the top-level domains that do not lead to a host on the internet (RFC 6761, RFC 6762,
// RFC 7686, ICANN's reservation of internal).
const special = " localhost local internal invalid onion arpa alt "

// Parse returns the name of a custom domain in lower case and A-labels, from a name or a wildcard
// (*.example.com) as a person types it, in Unicode too. The error is KindInvalid for what cannot be
// one: what is no host name, the domain of the host with the names above and below it, a name of
// this machine or network, an address and a public suffix.
func (v *Verifier) Parse(text string) (string, error) {
	typed, wildcard := cutWildcard(strings.TrimSuffix(text, "."))
	base, err := toASCII(typed)
	if err != nil {
		return "", gateway.Invalid("not a host name: %q", text).Because(err).
			WithHint("Examples: www.example.com; *.example.com for all names one label below it")
	}
	if err := v.check(base); err != nil {
		return "", err
	}
	if wildcard {
		return "*." + base, nil
	}
	return base, nil
}

func (v *Verifier) check(base string) error {
	labels := strings.Split(base, ".")
	last := labels[len(labels)-1]
	switch {
	case last[0] >= '0' && last[0] <= '9': // browsers take it for an address (WHATWG URL §3.5)
		return gateway.Invalid("%s is an address, not a host name", base)
	case base == v.Domain, isBelow(base, v.Domain):
		return gateway.Invalid("%s is a name of this host already", base).WithHint("The names of VMs below %s need no setting.", v.Domain)
	case isBelow(v.Domain, base):
		return gateway.Invalid("%s is above this host's own domain, %s", base, v.Domain)
	case strings.Contains(special, " "+last+" "):
		return gateway.Invalid("names below %s do not lead here from elsewhere", last)
	case len(labels) == 1:
		return gateway.Invalid("%s has one label; a custom domain has at least two", base)
	}
	if suffix, _ := publicsuffix.PublicSuffix(base); suffix == base {
		return gateway.Invalid("%s is a public suffix: names below it belong to different people", base)
	}
	return nil
}

// toASCII returns a host name in lower case and A-labels (RFC 5891 §5).
func toASCII(name string) (string, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		return "", errAddress
	}
	if len(name) > 4*maxNameBytes { // in Unicode too
		return "", errLong
	}
	profile := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckJoiners(true), idna.StrictDomainName(true), idna.VerifyDNSLength(true))
	ascii, err := profile.ToASCII(name)
	if err != nil {
		return "", err
	}
	if again, err := profile.ToASCII(ascii); err != nil || again != ascii { // of bytes that are not UTF-8, for one
		return "", errUnstable
	}
	if slices.Contains(strings.Split(ascii, "."), "") { // package idna accepts a final dot
		return "", errEmpty
	}
	if len(ascii) > maxNameBytes {
		return "", errLong
	}
	return ascii, nil
}

// maxNameBytes leaves room for the labels that a proof adds, within the 253 bytes of a name.
const maxNameBytes = 253 - len("lodge-.") - 32

var (
	errLong     = errors.New("the name is too long")
	errUnstable = errors.New("its A-labels are not those of a name")
	errEmpty    = errors.New("it has an empty label")
	errAddress  = errors.New("it is an address")
)

// isBelow reports whether name is below parent.
func isBelow(name, parent string) bool { return strings.HasSuffix(name, "."+parent) }
