package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lodge/gateway/api"
)

// examineLimit is how long one look-up or connection may take.
const examineLimit = 3 * time.Second

// doctor is the api.Doctor of this host.
type doctor struct {
	cfg      Config
	wildcard func() (*x509.Certificate, error) // nil without a public authority
	resolver *net.Resolver
}

// Examine implements api.Doctor.
func (d *doctor) Examine(ctx context.Context) []api.Finding {
	names := []string{d.cfg.Domain, "a-vm." + d.cfg.Domain} // the second one by the wildcard record
	ports, standard := []int{d.cfg.HTTPPort, d.cfg.HTTPSPort, d.cfg.SMTPPort}, []int{80, 443, 25}
	if d.cfg.IMAPPort != 0 {
		ports, standard = append(ports, d.cfg.IMAPPort), append(standard, 993)
	}
	findings := make([]api.Finding, len(names)+len(ports))
	addrs := make([][]netip.Addr, len(names))
	var looking sync.WaitGroup
	for i, name := range names {
		looking.Go(func() { addrs[i], findings[i] = d.examineName(ctx, name) })
	}
	looking.Wait()
	at := d.cfg.Listen
	if len(addrs[0]) > 0 && d.public() {
		at = addrs[0]
	}
	for i, port := range ports {
		looking.Go(func() { findings[len(names)+i] = d.examinePort(ctx, at, port, standard[i]) })
	}
	var delegation []api.Finding
	looking.Go(func() { delegation = d.examineDelegation(ctx, addrs[0]) })
	looking.Wait()
	return slices.Concat(findings, delegation, []api.Finding{d.examineCertificate(time.Now()), d.examineIdentity()})
}

// public reports whether the domain is more than a name on this machine.
func (d *doctor) public() bool { return !strings.HasSuffix(d.cfg.Domain, ".localhost") }

// examineName checks that a name leads to this host.
func (d *doctor) examineName(ctx context.Context, name string) ([]netip.Addr, api.Finding) {
	f := api.Finding{Check: "dns " + strings.Replace(name, "a-vm.", "*.", 1), Grade: api.Fine, Text: "local: needs no record"}
	if !d.public() {
		return nil, f
	}
	ctx, cancel := context.WithTimeout(ctx, examineLimit)
	defer cancel()
	addrs, err := d.resolver.LookupNetIP(ctx, "ip", name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	own := slices.DeleteFunc(slices.Clone(d.cfg.Listen), netip.Addr.IsLoopback)
	behindNAT := !slices.ContainsFunc(own, func(a netip.Addr) bool { return !a.IsPrivate() })
	fix := "Set an A or AAAA record for " + f.Check[len("dns "):] + " to this host's public address."
	switch {
	case err != nil:
		f.Grade, f.Text, f.Fix = api.Broken, err.Error(), fix
	case slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(own, a) }):
		f.Text = fmt.Sprintf("leads to %s, this host", list(addrs))
	case behindNAT:
		f.Grade, f.Text = api.Warning, fmt.Sprintf("leads to %s; this host listens at %s", list(addrs), list(d.cfg.Listen))
		f.Fix = "If that is not the address in front of this host, change the record. If nothing forwards to this host, set listen."
	default:
		f.Grade, f.Text = api.Broken, fmt.Sprintf("leads to %s; this host listens at %s", list(addrs), list(d.cfg.Listen))
		f.Fix = fix
	}
	return addrs, f
}

// examinePort checks that the port answers at any of the addresses.
func (d *doctor) examinePort(ctx context.Context, at []netip.Addr, port, standard int) api.Finding {
	f := api.Finding{Check: fmt.Sprintf("port %d", standard), Grade: api.Fine}
	reach := standard
	if !d.public() {
		reach = port
	}
	var last error
	for _, a := range at {
		dialer := net.Dialer{Timeout: examineLimit}
		c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(reach)))
		if err == nil {
			_ = c.Close() // nothing was sent
			f.Text = fmt.Sprintf("%s answers at port %d, seen from this host", a, reach)
			return f
		}
		last = err
	}
	f.Grade, f.Text = api.Broken, fmt.Sprint(last)
	f.Fix = fmt.Sprintf("Open port %d in the firewalls and forward it to %s, port %d.", reach, list(d.cfg.Listen), port)
	return f
}

// examineCertificate checks the wildcard. certmagic renews a certificate when a third of its life
// remains, so less than a sixth is a sign of failing renewals.
func (d *doctor) examineCertificate(now time.Time) api.Finding {
	f := api.Finding{Check: "certificate", Grade: api.Fine, Text: "of the host's own authority; lodge trust makes it known to a browser"}
	if d.wildcard == nil {
		return f
	}
	if d.cfg.ACME.Challenge == "http" {
		f.Text = "each name gets its own during its first visit"
		return f
	}
	leaf, err := d.wildcard()
	if err != nil {
		f.Grade, f.Text, f.Fix = api.Broken, err.Error(), "lodged tries again by itself. The log has each attempt: journalctl -u lodged"
		return f
	}
	left := leaf.NotAfter.Sub(now)
	f.Text = fmt.Sprintf("*.%s is valid until %s, %d days", d.cfg.Domain, leaf.NotAfter.Format(time.DateOnly), int(left.Hours()/24))
	if left < leaf.NotAfter.Sub(leaf.NotBefore)/6 {
		f.Grade, f.Fix = api.Warning, "Renewal is late. The log has the reason: journalctl -u lodged"
	}
	return f
}

// examineIdentity returns who can verify the VMs' tokens.
func (d *doctor) examineIdentity() api.Finding {
	f := api.Finding{Check: "identity tokens", Grade: api.Fine, Text: "services that trust " + issuerURL(d.cfg) + " can verify them"}
	switch {
	case !d.public():
		f.Text = "local: services elsewhere cannot verify them; that needs a domain of your own (docs/identity.md)"
	case d.cfg.ACME == nil:
		f.Text = "only services that trust " + d.cfg.path("ca/root.crt") + " can verify them"
	case d.cfg.HTTPSPort != 443:
		f.Text += ", unless they refuse an issuer with a port, as AWS does"
	}
	return f
}

func list(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}
