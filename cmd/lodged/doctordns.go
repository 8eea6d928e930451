package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"lodge/gateway/api"
)

// examineDelegation checks the records by which resolvers find the name server of this host, which
// proves the domain and has the keys of mail. Resolvers follow a CNAME to the responder's zone, and
// ask the responder itself, so port 53 is reachable from them if there is an answer. host is where
// the domain leads.
func (d *doctor) examineDelegation(ctx context.Context, host []netip.Addr) []api.Finding {
	if !d.cfg.answersDNS() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, examineLimit)
	defer cancel()
	proof := "_acme-challenge." + d.cfg.Domain
	servers, err := d.resolver.LookupNS(ctx, proof)
	findings := []api.Finding{d.delegated(ctx, proof, d.cfg.ACME.Responder.Zone, servers, err, host)}
	if !d.cfg.MailOut {
		return findings
	}
	keys := "_domainkey." + d.cfg.Domain
	servers, err = d.resolver.LookupNS(ctx, keys)
	if missing, ok := errors.AsType[*net.DNSError](err); ok && missing.IsNotFound {
		return findings // the keys are records of the domain
	}
	return append(findings, d.delegated(ctx, keys, keys, servers, err, host))
}

// delegated checks the name servers of a name, or the error of their look-up. The name is that of
// the zone, or an alias of it.
func (d *doctor) delegated(ctx context.Context, name, zone string, servers []*net.NS, err error, host []netip.Addr) api.Finding {
	f := api.Finding{Check: "dns " + name, Grade: api.Fine, Text: "this host answers for it"}
	others := d.otherServers(ctx, servers, host)
	switch {
	case err != nil:
		f.Grade, f.Text = api.Broken, err.Error()
	case len(others) > 0:
		f.Grade, f.Text = api.Warning, "not all of its name servers are this host: "+strings.Join(others, "; ")
	default:
		return f
	}
	f.Fix = fmt.Sprintf("Set only one NS record for %s, to %s, and open port 53, UDP and TCP, in the firewalls.", zone, d.cfg.Domain)
	if !strings.EqualFold(strings.TrimSuffix(zone, "."), name) {
		f.Fix = fmt.Sprintf("Set a CNAME record for %s to %s. ", name, zone) + f.Fix
	}
	return f
}

// otherServers returns which of the name servers are not known to be this host, by their addresses.
func (d *doctor) otherServers(ctx context.Context, servers []*net.NS, host []netip.Addr) []string {
	own := slices.Concat(host, slices.DeleteFunc(slices.Clone(d.cfg.Listen), netip.Addr.IsLoopback))
	var others []string
	for _, ns := range servers {
		name := strings.TrimSuffix(ns.Host, ".")
		if strings.EqualFold(name, d.cfg.Domain) {
			continue
		}
		addrs, err := d.resolver.LookupNetIP(ctx, "ip", ns.Host)
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		switch {
		case err != nil:
			others = append(others, fmt.Sprintf("%s: %v", name, err))
		case !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(own, a) }):
			others = append(others, fmt.Sprintf("%s leads to %s", name, list(addrs)))
		}
	}
	return others
}
