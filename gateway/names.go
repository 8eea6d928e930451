package gateway

import (
	"strconv"
	"strings"
)

// MaxNameBytes is the longest VM name: a DNS label has 63 octets (RFC 1035 §2.3.4), and "<port>-"
// takes up to 6 of them.
const MaxNameBytes = 57

// reserved are the names below the domain, or below InternalDomain, that the host itself uses or may
// use.
const reserved = " s3 www mail smtp imap lodge localhost internal admin api dns ns ntp metadata gateway root postmaster "

// CheckName checks that a VM can have a name (else KindInvalid): 1 to 57 of a–z, 0–9 and "-". It
// starts with a letter, does not end with "-", contains no "--" and is not reserved. The first
// letter keeps it apart from <port>-<vm>.
func CheckName(name string) error {
	hint := "Use 1 to 57 lower-case letters, digits and single dashes, starting with a letter, such as \"blog\"."
	switch {
	case name == "":
		return Invalid("a VM needs a name").WithHint("%s", hint)
	case len(name) > MaxNameBytes:
		return Invalid("the name is %d characters long; the limit is %d", len(name), MaxNameBytes).WithHint("%s", hint)
	case strings.Contains(reserved, " "+name+" "):
		return Invalid("the name %q is reserved for the host", name).WithHint("Choose another, such as \"my-%s\".", name)
	case name[0] < 'a' || name[0] > 'z':
		return Invalid("the name %q does not start with a lower-case letter", name).WithHint("%s", hint)
	case strings.HasSuffix(name, "-") || strings.Contains(name, "--"):
		return Invalid("the name %q has a dash at its end or two in a row", name).WithHint("%s", hint)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return Invalid("the name %q has a character that a host name cannot have", name).WithHint("%s", hint)
		}
	}
	return nil
}

// ParsePort reads a TCP port, 1 to 65535, in plain decimal.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, Invalid("not a port: %q", s).WithHint("A port is a number from 1 to 65535, such as 8080.")
	}
	return uint16(n), nil
}

// SplitHost parses the first label of a host name below the domain: "blog" is the plain name
// (DefaultPort), "8080-blog" a port of it. It does not check that the VM exists.
func SplitHost(label string) (name string, port uint16, err error) {
	if digits, rest, ok := strings.Cut(label, "-"); ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
		if port, err = ParsePort(digits); err != nil {
			return "", 0, err
		}
		label = rest
	}
	return label, port, CheckName(label)
}
