package cli

import (
	"context"
	"io"

	"lodge/gateway"
)

type mailDNSCmd struct {
	Name string `arg:"" help:"The VM whose own domains the records are for; without it, those of the host." name:"vm" optional:"" predictor:"vm"`
}

// Help is the text below the usage.
func (*mailDNSCmd) Help() string {
	return "The output is in the format of zone files. MX leads mail here; SPF, DKIM and DMARC show others that mail of the VMs comes from this host. " +
		"If the domain sends other mail too, merge the records with those there are: a name has one SPF record. " +
		"The PTR record of the host's address, which its provider sets, should be the domain."
}

// Run prints records.
func (c *mailDNSCmd) Run(ctx context.Context, a *app) error {
	records, err := a.client.MailDNS(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(records, func(w io.Writer) { zone(w, records) })
}

// zone writes records as a zone file has them.
func zone(w io.Writer, records []gateway.DNSRecord) {
	for _, r := range records {
		row(w, "; "+r.Why)
		row(w, r.Name+" "+r.Type+" "+r.Value)
	}
}
