package gateway

import (
	"slices"
	"strings"
)

// MaxDomains is the largest number of custom domains of a VM.
const MaxDomains = 64

// Domain is a custom domain of a VM: a name outside the host's domain that leads to one port of it.
type Domain struct {
	Name string `json:"name"` // in lower case and A-labels; *.example.com is any name one label below example.com, and not that itself
	Port uint16 `json:"port"` // DefaultPort (the port of the plain name) or 1 to 65535

	Passthrough bool `json:"passthrough,omitempty"` // the VM ends TLS itself, at Port; everyone may connect
	Mail        bool `json:"mail,omitempty"`        // mail to anything@ it goes to the VM, which may send from there; of no wildcard
}

// Wildcard returns the name that has host as one of the names that it covers: *.example.com for
// www.example.com.
func Wildcard(host string) string {
	_, parent, _ := strings.Cut(host, ".")
	return "*." + parent
}

// WithDomain returns m's domains with d among them, in place of an earlier one of that name.
func (m VM) WithDomain(d Domain) []Domain {
	domains := slices.Clone(m.Domains)
	if i := indexDomain(domains, d.Name); i >= 0 {
		domains[i] = d
		return domains
	}
	return append(domains, d)
}

// WithoutDomain returns m's domains without that name.
func (m VM) WithoutDomain(name string) []Domain {
	return slices.DeleteFunc(slices.Clone(m.Domains), func(d Domain) bool { return d.Name == name })
}

// HasDomain reports whether name, an exact one or a wildcard, is among m's domains.
func (m VM) HasDomain(name string) bool { return indexDomain(m.Domains, name) >= 0 }

func indexDomain(all []Domain, name string) int {
	return slices.IndexFunc(all, func(d Domain) bool { return d.Name == name })
}

// ByDomain returns the VM that a host name leads to as a custom domain, and that domain: the exact
// one if there is one, else the wildcard. Host is in lower case.
func (d *Directory) ByDomain(host string) (VM, Domain, bool) {
	byDomain := d.now.Load().byDomain
	for _, name := range []string{host, Wildcard(host)} {
		if m, ok := byDomain[name]; ok {
			return m, m.Domains[indexDomain(m.Domains, name)], true
		}
	}
	return VM{}, Domain{}, false
}

// PassedThrough returns the VM that ends the TLS of a host name itself, and the port where it does. Host
// is in lower case.
func (d *Directory) PassedThrough(host string) (VM, uint16, bool) {
	m, domain, ok := d.ByDomain(host)
	if !ok || !domain.Passthrough {
		return VM{}, 0, false
	}
	return m, domain.Port, true
}

// ByMailDomain returns the VM that has a domain for mail too. Host is in lower case and A-labels. No wildcard
// counts, and no domain that is for pages alone.
func (d *Directory) ByMailDomain(host string) (VM, bool) {
	m, ok := d.now.Load().byDomain[host]
	if !ok || strings.HasPrefix(host, "*.") || !m.Domains[indexDomain(m.Domains, host)].Mail {
		return VM{}, false
	}
	return m, true
}

// MailDomains are the domains that m has for mail too.
func (m VM) MailDomains() []string {
	names := []string{}
	for _, d := range m.Domains {
		if d.Mail {
			names = append(names, d.Name)
		}
	}
	return names
}

// HolderOf returns the VM that has a domain, an exact one or a wildcard.
func (d *Directory) HolderOf(domain string) (VM, bool) {
	m, ok := d.now.Load().byDomain[domain]
	return m, ok
}

// CheckDomain checks that a VM can have a further domain, or has it already: another VM's is
// KindTaken, one beyond MaxDomains KindConflict.
func (d *Directory) CheckDomain(m VM, domain string) error {
	m.Domains = m.WithDomain(Domain{Name: domain})
	return d.checkDomains(m)
}

// checkDomains checks that no domain of m belongs to another VM, and their number. A VM that is
// being removed has none.
func (d *Directory) checkDomains(m VM) error {
	if m.Desired == Removed {
		return nil
	}
	if len(m.Domains) > MaxDomains {
		return Errorf(KindConflict, "%s has %d domains, which is the limit", m.Name, MaxDomains).
			WithHint("Remove one: lodge domain rm NAME. A wildcard such as *.example.com covers many names.")
	}
	for _, domain := range m.Domains {
		if holder, ok := d.HolderOf(domain.Name); ok && holder.ID != m.ID {
			return Errorf(KindTaken, "%s is a domain of the VM %q already", domain.Name, holder.Name).
				WithHint("Remove it there first: lodge domain rm '%s'", domain.Name)
		}
	}
	return nil
}
