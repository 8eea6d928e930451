package smtpd

import (
	"strings"

	"lodge/gateway"
)

// maxAddressBytes is the longest path (RFC 5321 §4.5.3.1.3).
const maxAddressBytes = 254

// vmName splits a recipient into the name of the VM that it belongs to. The local part may be anything, so the first
// label of the domain decides: user@blog.lodge.localhost is blog's. Domains compare without case and with one final dot
// allowed; anything below a VM's own name belongs to no VM. ok is false for an address of another domain.
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

// sane reports whether an address may go into a header: printable ASCII, no angle brackets, not too long. Internationalised
// addresses (RFC 6531) are not offered, so they cannot come.
func sane(address string) bool {
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

// quoted writes an address as RFC 5321 §4.1.2 has it: go-smtp has taken the quotes off its local part.
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

// find is the VM that rcpt belongs to, if mail is taken for it now.
func (s *Server) find(rcpt string) (gateway.VM, error) {
	if !sane(rcpt) {
		return gateway.VM{}, replyBadAddress()
	}
	name, ok := vmName(rcpt, s.config.Domain)
	if !ok {
		return gateway.VM{}, replyRelay()
	}
	m, ok := s.config.Directory.ByName(name)
	if !ok || m.Desired == gateway.Removed {
		return gateway.VM{}, replyUnknown()
	}
	return m, nil
}
