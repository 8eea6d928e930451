package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"lodge/gateway/api"
)

// examineDelegation checks the record by which the responder proves the domain. Resolvers follow a
// CNAME to the responder's zone, and ask the responder itself, so port 53 is reachable from them if
// there is an answer. host is where the domain leads.
func (d *doctor) examineDelegation(ctx context.Context, host []netip.Addr) []api.Finding {
	if d.cfg.ACME == nil || d.cfg.ACME.Challenge != "responder" {
		return nil
	}
	name, zone := "_acme-challenge."+d.cfg.Domain, d.cfg.ACME.Responder.Zone
	f := api.Finding{Check: "dns " + name, Grade: api.Fine, Text: "this host answers for it"}
	ctx, cancel := context.WithTimeout(ctx, examineLimit)
	defer cancel()
	servers, err := d.resolver.LookupNS(ctx, name)
	others := d.otherServers(ctx, servers, host)
	switch {
	case err != nil:
		f.Grade, f.Text = api.Broken, err.Error()
	case len(others) > 0:
		f.Grade, f.Text = api.Warning, "not all of its name servers are this host: "+strings.Join(others, "; ")
	default:
		return []api.Finding{f}
	}
	f.Fix = fmt.Sprintf("Set only one NS record for %s, to %s, and open port 53, UDP and TCP, in the firewalls.", zone, d.cfg.Domain)
	if !strings.EqualFold(strings.TrimSuffix(zone, "."), name) {
		f.Fix = fmt.Sprintf("Set a CNAME record for %s to %s. ", name, zone) + f.Fix
	}
	return []api.Finding{f}
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
