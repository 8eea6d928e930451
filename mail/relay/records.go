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
	if q.config.Smarthost != nil {
		spf, note = "v=spf1 a:"+domain+q.smarthostSPF()+" ~all", "the smarthost sends mail of the VMs; if its provider names an include:, add that"
	}
	all := []gateway.DNSRecord{
		{Name: domain + ".", Type: "MX", Value: "10 " + domain + ".", Why: "mail for the domain comes here"},
		{Name: "*." + domain + ".", Type: "MX", Value: "10 " + domain + ".", Why: "and that for the VMs"},
		{Name: domain + ".", Type: "TXT", Value: quoted(spf), Why: note},
		{Name: "*." + domain + ".", Type: "TXT", Value: quoted(spf), Why: "the same for the VMs' names"},
	}
	why := "the key of the signatures, one for all VMs"
	if q.config.ServesKeys {
		why += "; in place of all keys, one record: _domainkey." + domain + ". NS " + domain + "."
	}
	for _, k := range q.keys {
		kind, data := k.public()
		all = append(all, gateway.DNSRecord{
			Name: k.selector + "._domainkey." + domain + ".", Type: "TXT",
			Value: quoted("v=DKIM1; k=" + kind + "; p=" + data), Why: why,
		})
	}
	return append(all, gateway.DNSRecord{
		Name: "_dmarc." + domain + ".", Type: "TXT", Value: quoted("v=DMARC1; p=reject; adkim=r; aspf=r; rua=mailto:postmaster@" + domain),
		Why: "what is not signed or sent by this host is forged; if the domain is below another, that one's record counts for the VMs",
	})
}

// DomainRecords returns the DNS records that a VM's own domain needs for its mail. The keys are aliases of the
// host's, so that they stay right if those change.
func (q *Queue) DomainRecords(domain string) []gateway.DNSRecord {
	host := q.config.Domain
	all := []gateway.DNSRecord{
		MX(domain, host),
		{Name: domain + ".", Type: "TXT", Value: quoted("v=spf1 a:" + host + q.smarthostSPF() + " ~all"), Why: "this host sends mail of " + domain},
	}
	for _, k := range q.keys {
		name := k.selector + "._domainkey."
		all = append(all, gateway.DNSRecord{Name: name + domain + ".", Type: "CNAME", Value: name + host + ".", Why: "the key of the signatures is the host's"})
	}
	return append(all, gateway.DNSRecord{
		Name: "_dmarc." + domain + ".", Type: "TXT", Value: quoted("v=DMARC1; p=none; adkim=r; aspf=r"),
		Why: "set p=reject once all that sends mail of " + domain + " has its records",
	})
}

// MX returns the record that leads mail of a domain to this host.
func MX(domain, host string) gateway.DNSRecord {
	return gateway.DNSRecord{Name: domain + ".", Type: "MX", Value: "10 " + host + ".", Why: "mail for " + domain + " comes here"}
}

// smarthostSPF is the mechanism for the smarthost, if there is one.
func (q *Queue) smarthostSPF() string {
	h := q.config.Smarthost
	if h == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(h.Addr)
	if err != nil {
		host = h.Addr
	}
	return " a:" + host
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
