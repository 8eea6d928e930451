package api

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"lodge/gateway"
	"lodge/gateway/domains"
)

// Domains checks custom domains; domains.Verifier is one.
type Domains interface {
	// Parse returns a domain in the form that records have.
	Parse(text string) (string, error)
	// Prove returns how DNS proves that a domain belongs to a VM; byAddress allows a proof that does
	// not name the VM.
	Prove(ctx context.Context, vm gateway.VM, domain string, byAddress bool) (domains.Proof, error)
}

// Domain is a custom domain as every face shows it.
type Domain struct {
	VM string `json:"vm"` // the name of the VM that it leads to
	gateway.Domain
	URL   string        `json:"url"`             // its page
	Proof domains.Proof `json:"proof,omitempty"` // after an addition: the record that proved it, "cname", "txt" or "address"
	Note  string        `json:"note,omitempty"`  // after an addition and in lists: why it cannot be opened yet
}

func (s Session) showDomain(m gateway.VM, d gateway.Domain) Domain {
	url, certified := s.api.Web.DomainURL(d.Name)
	shown := Domain{VM: m.Name, Domain: d, URL: url}
	if !certified && !d.Passthrough {
		shown.Note = "Browsers cannot open it yet: the host's own authority signs for " + s.api.Domain +
			" only, and a certificate for this name needs a public authority (ACME), which is not set up."
	}
	return shown
}

// AddDomain makes a custom domain lead to a port of a VM, once DNS proves that it belongs to the VM.
// For one that the VM has already it sets the port, who ends TLS, and whether it is for mail too, for which the
// proof is made again: who had the domain when its page was set up may not have it any more. Addresses of this host are a proof
// for its owner alone: they do not name the VM. Of to the name may be in any spelling.
func (s Session) AddDomain(ctx context.Context, name string, to gateway.Domain) (Domain, error) {
	m, err := s.vm(verbAddDomain, name)
	if err != nil {
		return Domain{}, err
	}
	d, err := s.parseDomain(to)
	if err != nil {
		return Domain{}, err
	}
	if err := s.api.Directory.CheckDomain(m, d.Name); err != nil { // before DNS is asked
		return Domain{}, err
	}
	var proof domains.Proof
	if !m.HasDomain(d.Name) || d.Mail && !slices.Contains(m.MailDomains(), d.Name) {
		if proof, err = s.api.Domains.Prove(ctx, m, d.Name, s.owns()); err != nil {
			return Domain{}, err
		}
	}
	m, err = s.update(ctx, verbAddDomain, m.ID, func(m *gateway.VM) error {
		if m.Desired == gateway.Removed {
			return gateway.NotFound(name)
		}
		m.Domains = m.WithDomain(d)
		return nil
	})
	if err != nil {
		return Domain{}, err
	}
	s.audit(ctx, gateway.EventDomainAdded, gateway.LogVM(m.Identity), slog.String("host", d.Name), slog.Int("port", int(d.Port)), slog.Bool("passthrough", d.Passthrough), slog.Bool("mail", d.Mail))
	added := s.showDomain(m, d)
	added.Proof = proof
	if d.Passthrough && len(s.api.Ports.Listening(ctx, m, []uint16{d.Port})) == 0 {
		added.Note = fmt.Sprintf("Nothing listens at port %d of %s now: connections are reset until a program there ends TLS.", d.Port, m.Name)
	}
	return added, nil
}

// tlsPort is where a VM ends TLS unless another port is named.
const tlsPort = 443

// parseDomain returns a domain in the form that records have. A wildcard is not passed through: browsers
// use a connection for all names of its certificate (RFC 9113 §9.1.1), and a longer name below the
// wildcard may be another VM's. It is not for mail either: a name without an MX record of its own gets
// none by a wildcard that another record hides (RFC 4592 §2.2.1), and DKIM needs records at each name.
func (s Session) parseDomain(d gateway.Domain) (gateway.Domain, error) {
	name, err := s.api.Domains.Parse(d.Name)
	if err != nil {
		return gateway.Domain{}, err
	}
	d.Name = name
	if d.Mail && strings.HasPrefix(d.Name, "*.") {
		return gateway.Domain{}, gateway.Invalid("%s is a wildcard, which cannot be for mail", d.Name).WithHint("Add each name with --mail.")
	}
	if !d.Passthrough {
		return d, nil
	}
	if strings.HasPrefix(d.Name, "*.") {
		return gateway.Domain{}, gateway.Invalid("%s is a wildcard, which cannot be passed through", d.Name).
			WithHint("Add each name with --passthrough, or the wildcard without it.")
	}
	if d.Port == gateway.DefaultPort {
		d.Port = tlsPort
	}
	return d, nil
}

// RemoveDomain ends that a custom domain leads to a VM.
func (s Session) RemoveDomain(ctx context.Context, domain string) error {
	name, invalid := s.api.Domains.Parse(domain)
	if invalid != nil { // it may have been possible when it was added
		name = strings.ToLower(domain)
	}
	m, ok := s.api.Directory.HolderOf(name)
	switch {
	case !s.may(verbRemoveDomain, m):
		return errDenied(verbRemoveDomain)
	case !ok && invalid != nil:
		return invalid
	case !ok:
		return gateway.Errorf(gateway.KindNotFound, "no VM has the domain %s", name).WithHint("lodge domain ls lists the domains.")
	}
	m, err := s.update(ctx, verbRemoveDomain, m.ID, func(m *gateway.VM) error {
		m.Domains = m.WithoutDomain(name)
		return nil
	})
	if err == nil {
		s.audit(ctx, gateway.EventDomainRemoved, gateway.LogVM(m.Identity), slog.String("host", name))
	}
	return err
}

// Domains lists the custom domains of a VM, or of all VMs for the empty name, in the order of the
// VMs' names.
func (s Session) Domains(_ context.Context, name string) ([]Domain, error) {
	var vms []gateway.VM
	if name == "" {
		if err := s.allowed(verbDomains); err != nil {
			return nil, err
		}
		vms = s.api.Directory.All()
	} else {
		m, err := s.vm(verbDomains, name)
		if err != nil {
			return nil, err
		}
		vms = []gateway.VM{m}
	}
	all := []Domain{} // not nil: an empty list is [] in JSON
	for _, m := range vms {
		if m.Desired == gateway.Removed {
			continue
		}
		for _, d := range m.Domains {
			all = append(all, s.showDomain(m, d))
		}
	}
	return all, nil
}
