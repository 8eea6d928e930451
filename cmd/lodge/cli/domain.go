package cli

import (
	"context"
	"fmt"
	"io"

	"lodge/gateway"
	"lodge/gateway/api"
)

type domainCmd struct {
	Add domainAddCmd `cmd:"" help:"Make a domain of yours lead to a VM, or to one port of it."`
	Rm  domainRmCmd  `cmd:"" help:"Remove a domain from its VM."`
	Ls  domainLsCmd  `cmd:"" help:"List the domains of the VMs, or of one."`
}

type domainAddCmd struct {
	named

	Domain      string `arg:"" help:"A name such as www.example.com, or *.example.com." name:"name"`
	Port        uint16 `help:"The port that it leads to; without it, the one that the VM's own name leads to." placeholder:"N"`
	Passthrough bool   `help:"Pass TLS on unread: the VM has the certificate, and decides who may open it. Without --port, to port 443."`
	Mail        bool   `help:"Mail to anything@ this name goes to the VM too, which may send from there. Without it, none does."`
}

// Help is the text below the usage.
func (*domainAddCmd) Help() string {
	return "DNS has to prove that the domain belongs to the VM: by a CNAME record that leads to the VM's own name, or by a TXT " +
		"record. Without a proof, the error shows the records to set. Addresses of this host prove a name too, for its owner, but no wildcard.\n\n" +
		"*.example.com stands for all names one label below example.com, and not for example.com, which is added by itself. " +
		"An exact name goes before a wildcard. The domain has the visibility of its port: see lodge share.\n\n" +
		"With --passthrough, everyone reaches the port, whatever its visibility, and the program there sees the VM's gateway as its peer. " +
		"With --mail, mail to the name is the VM's as well, and nothing else of its mail settings changes. " +
		"A second lodge domain add changes the port, who ends TLS, and whether the name is for mail; it ends what is open."
}

// Run adds a domain.
func (c *domainAddCmd) Run(ctx context.Context, a *app) error {
	added, err := a.client.AddDomain(ctx, c.Name, gateway.Domain{Name: c.Domain, Port: c.Port, Passthrough: c.Passthrough, Mail: c.Mail})
	if err != nil {
		return err
	}
	return a.print(added, func(w io.Writer) {
		row(w, fmt.Sprintf("%s leads to %s.", added.URL, target(added)))
		if added.Note != "" {
			row(w, added.Note)
		}
		if added.Mail {
			row(w, fmt.Sprintf("Mail to anything@%s goes to %s, once DNS has these records: lodge mail dns %s", added.Name, added.VM, added.VM))
		}
	})
}

// target names what a domain leads to.
func target(d api.Domain) string {
	to := fmt.Sprintf("port %d of %s", d.Port, d.VM)
	switch {
	case d.Passthrough:
		to += ", which ends TLS itself"
	case d.Port == gateway.DefaultPort:
		to = d.VM
	}
	if d.Mail {
		to += ", with mail"
	}
	return to
}

type domainRmCmd struct {
	Domain string `arg:"" help:"The domain, one of lodge domain ls." name:"name"`
}

// Run removes a domain.
func (c *domainRmCmd) Run(ctx context.Context, a *app) error {
	if err := a.client.RemoveDomain(ctx, c.Domain); err != nil {
		return err
	}
	return a.print(map[string]string{"removed": c.Domain}, func(w io.Writer) { row(w, c.Domain+" is removed.") })
}

type domainLsCmd struct {
	Name string `arg:"" help:"The VM's name; without it, all VMs." name:"vm" optional:"" predictor:"vm"`
}

// Run lists domains.
func (c *domainLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.Domains(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No domains. Add one: lodge domain add VM www.example.com")
			return
		}
		row(w, "DOMAIN", "LEADS TO", "URL")
		for _, d := range all {
			row(w, d.Name, target(d), d.URL)
		}
	})
}
