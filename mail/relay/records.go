package relay

import (
	"net"
	"strings"

	"lodge/gateway"
)

// Records returns the DNS records that mail of this host needs. The names are complete; texts are as in
// zone files.
func (q *Queue) Records() []gateway.DNSRecord {
	domain := q.config.Domain
	spf, note := "v=spf1 a:"+domain+" -all", "only this host sends mail of the VMs"
	if h := q.config.Smarthost; h != nil {
		host, _, err := net.SplitHostPort(h.Addr)
		if err != nil {
			host = h.Addr
		}
		spf, note = "v=spf1 a:"+domain+" a:"+host+" ~all", "the smarthost sends mail of the VMs; if its provider names an include:, add that"
	}
	all := []gateway.DNSRecord{
		{Name: domain + ".", Type: "MX", Value: "10 " + domain + ".", Why: "mail for the domain comes here"},
		{Name: "*." + domain + ".", Type: "MX", Value: "10 " + domain + ".", Why: "and that for the VMs"},
		{Name: domain + ".", Type: "TXT", Value: quoted(spf), Why: note},
		{Name: "*." + domain + ".", Type: "TXT", Value: quoted(spf), Why: "the same for the VMs' names"},
	}
	for _, k := range q.keys {
		kind, data := k.public()
		all = append(all, gateway.DNSRecord{
			Name: k.selector + "._domainkey." + domain + ".", Type: "TXT",
			Value: quoted("v=DKIM1; k=" + kind + "; p=" + data), Why: "the key of the signatures, one for all VMs",
		})
	}
	return append(all, gateway.DNSRecord{
		Name: "_dmarc." + domain + ".", Type: "TXT", Value: quoted("v=DMARC1; p=reject; adkim=r; aspf=r; rua=mailto:postmaster@" + domain),
		Why: "what is not signed or sent by this host is forged; if the domain is below another, that one's record counts for the VMs",
	})
}

// maxStringBytes of a TXT record are in one string (RFC 1035 §3.3).
const maxStringBytes = 255

// quoted writes a text as the strings of a TXT record.
func quoted(text string) string {
	var parts []string
	for len(text) > maxStringBytes {
		parts = append(parts, `"`+text[:maxStringBytes]+`"`)
		text = text[maxStringBytes:]
	}
	return strings.Join(append(parts, `"`+text+`"`), " ")
}
