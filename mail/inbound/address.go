package inbound

import "strings"

// maxAddressBytes is the longest path (RFC 5321 §4.5.3.1.3).
const maxAddressBytes = 254

// vmName returns the name of the VM that a recipient belongs to: user@blog.lodge.localhost belongs
// to blog, whatever the local part. Domains compare without case and may have a final dot; a name
// below a VM's name belongs to no VM. ok is false for an address of another domain.
func vmName(rcpt, domain string) (name string, ok bool) {
	at := strings.LastIndexByte(rcpt, '@')
	if at <= 0 {
		return "", false
	}
	host := strings.TrimSuffix(strings.ToLower(rcpt[at+1:]), ".")
	name, ok = strings.CutSuffix(host, "."+strings.ToLower(domain))
	if !ok || name == "" {
		return "", false
	}
	return name, true
}

// isValid reports whether an address may go into a header: printable ASCII, no angle brackets, at
// most maxAddressBytes. Internationalised addresses (RFC 6531) are not offered.
func isValid(address string) bool {
	if len(address) > maxAddressBytes {
		return false
	}
	for _, c := range []byte(address) {
		if c < ' ' || c > '~' || c == '<' || c == '>' {
			return false
		}
	}
	return true
}

// quoted writes an address as RFC 5321 §4.1.2 requires: go-smtp has removed the quotes of its local
// part.
func quoted(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	local, domain := address[:at], address[at:]
	if isDotString(local) {
		return address
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"` + domain
}

func isDotString(local string) bool {
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsAny(atom, ` "(),:;<>@[\]`) {
			return false
		}
	}
	return true
}
