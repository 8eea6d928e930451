package submit

import (
	"fmt"
	"net/mail"
	"strings"

	"lodge/gateway"
	"lodge/mail/smtpd"
)

// owns reports whether an address is the VM's own.
func (p *Policy) owns(m gateway.VM, address smtpd.Path) bool {
	holder := p.config.Inbound.Holder(address)
	return holder.Known() && holder.ID == m.ID && address.Domain != ""
}

// complete gives an address that programs of a VM make without knowing its name (root@localhost,
// root@blog) the domain of the VM (RFC 6409 §8.3). Others, and the null sender, stay as they are.
func (p *Policy) complete(m gateway.VM, address smtpd.Path) smtpd.Path {
	host := strings.ToLower(strings.TrimSuffix(address.Domain, "."))
	switch host {
	case p.config.Domain:
	case "localhost", "localhost.localdomain", m.Name, m.Name + "." + gateway.InternalDomain:
		address.Domain = p.host(m)
	}
	return address
}

// host is the VM's name in mail addresses.
func (p *Policy) host(m gateway.VM) string { return m.Name + "." + p.config.Domain }

// A reply has 512 bytes at most (RFC 5321 §4.5.3.1.5).
const (
	maxNamed    = 3 // aliases, and domains
	maxOwnBytes = 350
)

// replyForged names the addresses that are the VM's own.
func (p *Policy) replyForged(m gateway.VM, what string) error {
	own := "anything@" + p.host(m)
	for i, alias := range m.Mail.Aliases {
		if i == maxNamed {
			own += " and its other aliases"
			break
		}
		if local, ok := strings.CutSuffix(alias, "@"); ok {
			own += ", " + local + "@" + p.config.Domain
		} else {
			own += ", anything@" + alias + "." + p.config.Domain
		}
	}
	for i, domain := range m.MailDomains() {
		if i == maxNamed {
			own += " and its other domains"
			break
		}
		own += ", anything@" + domain
	}
	own = own[:min(len(own), maxOwnBytes)]
	return smtpd.Reply{Code: 550, Status: "5.7.1", Text: fmt.Sprintf("%s: %s sends from %s", what, m.Name, own)}
}

// authors decides on a field that names authors. text is what the field should have: the same, unless an
// address had to be completed.
func (p *Policy) authors(m gateway.VM, name, value string) (text string, err error) {
	value = unfold(value)
	list, err := parseAddresses(value)
	if err != nil || len(list) == 0 {
		one, ok := bareAuthor(value)
		if !ok {
			return "", smtpd.Reply{Code: 554, Status: "5.6.0", Text: fmt.Sprintf("The %s header cannot be read: it is %s: Name <user@%s> (RFC 5322 section 3.6.2)", name, name, p.host(m))}
		}
		one.Address += "@" + p.host(m)
		list, text = []*mail.Address{one}, one.String()
	}
	for _, one := range list {
		path, ok := parsePath(one.Address)
		whole := p.complete(m, path)
		if !ok || !p.owns(m, whole) {
			return "", p.replyForged(m, "The address in "+name+" is not the VM's")
		}
		if whole != path {
			one.Address = whole.Local + "@" + whole.Domain
			text = "completed"
		}
	}
	if text == "" {
		return value, nil
	}
	return joinAddresses(list), nil
}

// parseAddresses reads a list of addresses. A charset in a name does not matter.
func parseAddresses(text string) ([]*mail.Address, error) {
	return (&mail.AddressParser{WordDecoder: anyCharset()}).ParseList(text) //nolint:wrapcheck // the callers word it
}

// parsePath reads the address of a mail.Address, whose local part has no quotes.
func parsePath(address string) (smtpd.Path, bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return smtpd.Path{}, false
	}
	return smtpd.ParsePath("<" + smtpd.Path{Local: address[:at], Domain: address[at+1:]}.String() + ">")
}

// bareAuthor reads an author without a domain, such as cron's "root (Cron Daemon)" or "Cron <root>".
func bareAuthor(text string) (*mail.Address, bool) {
	one := &mail.Address{Address: text}
	if name, local, ok := strings.Cut(text, "<"); ok {
		local, ok := strings.CutSuffix(local, ">")
		if !ok {
			return nil, false
		}
		one.Name, one.Address = strings.Trim(strings.TrimSpace(name), `"`), local
	} else if local, comment, ok := strings.Cut(text, "("); ok {
		comment, ok := strings.CutSuffix(comment, ")")
		if !ok {
			return nil, false
		}
		one.Name, one.Address = comment, strings.TrimSpace(local)
	}
	local := strings.Trim(one.Address, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
	return one, local == "" && one.Address != "" && len(one.Address) <= 64 && !strings.ContainsAny(one.Name, `"()<>\`)
}

// joinAddresses writes a list of addresses, folded.
func joinAddresses(list []*mail.Address) string {
	all := make([]string, 0, len(list))
	for _, one := range list {
		all = append(all, one.String())
	}
	return strings.Join(all, ",\r\n ")
}
