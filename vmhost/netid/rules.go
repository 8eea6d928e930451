package netid

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"lodge/gateway"
)

// elsewhere are the IPv4 networks that are not the public internet (RFC 6890). Guests never reach
// these, nor the networks that the host is attached to, through the host.
func elsewhere() []string {
	return []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
	}
}

// maxFlows is how many connections one guest may have to the world, and how many to the gateway. A
// host's connection table has 262,144 entries by default.
const maxFlows = 4096

// ruleset is one transaction: "add" keeps "delete" from failing where there is no table yet.
//
// Its chain from-tap runs before the kernel reassembles fragments (NF_IP_PRI_CONNTRACK_DEFRAG,
// -400). After that, a guest could slip a fragment with its neighbour's source address into the
// neighbour's packet. The arp table keeps guests from filling the neighbour cache, and the host
// from answering for gateway.LinkLocal on its own networks. The last rule of input keeps processes
// of the host from the listeners on taps.
//
// Its chain from-user keeps users of the host other than root from the guests' ports: the gateway
// checks who may use them. Port 22 stays open, for "ssh -J": a guest's sshd authenticates its own
// clients.
//
// Two dynamic sets keep one guest from filling the host's connection table: they count what each
// tap has open, to the world and to the gateway. Datagrams to the gateway are not tracked: each
// would take an entry for half a minute.
const ruleset = `
add table inet lodge
delete table inet lodge
add table arp lodge
delete table arp lodge

table arp lodge {
	set guests {
		type ifname . ether_addr . ipv4_addr
		{{if .Guests}}elements = { {{range .Guests}}{{.Tap}} . {{.MAC}} . {{.Addr}}, {{end}} }{{end}}
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname . arp saddr ether . arp saddr ip @guests accept
		iifname "lg*" drop
		arp daddr ip {{.Gateway}} drop
	}
}

table inet lodge {
	set guests {
		type ifname . ether_addr . ipv4_addr
		{{if .Guests}}elements = { {{range .Guests}}{{.Tap}} . {{.MAC}} . {{.Addr}}, {{end}} }{{end}}
	}
	set elsewhere {
		type ipv4_addr
		flags interval
		auto-merge
		elements = { {{range .Elsewhere}}{{.}}, {{end}} }
	}
	set flows {
		type ifname
		flags dynamic
		size 65536
	}
	set calls {
		type ifname
		flags dynamic
		size 65536
	}

	chain arrive {
		type filter hook prerouting priority -450; policy accept;
		iifname "lg*" goto from-tap
		ip saddr {{.Net}} drop
	}
	chain from-tap {
		ip hdrlength > 5 drop
		ip protocol != { tcp, udp, icmp } drop
		iifname . ether saddr . ip saddr @guests accept
		drop
	}

	{{if .UDP}}
	chain untracked {
		type filter hook prerouting priority raw; policy accept;
		iifname "lg*" ip daddr {{.Gateway}} udp dport { {{range .UDP}}{{.}}, {{end}} } notrack
	}
	chain untracked-answers {
		type filter hook output priority raw; policy accept;
		oifname "lg*" ip saddr {{.Gateway}} udp sport { {{range .UDP}}{{.}}, {{end}} } notrack
	}
	{{end}}

	chain input {
		type filter hook input priority filter; policy accept;
		iifname "lg*" goto to-host
		ip daddr {{.Gateway}} meta l4proto { tcp, udp } reject
	}
	chain to-host {
		ip daddr != {{.Gateway}} drop
		ct state established,related accept
		ct state new add @calls { iifname ct count over {{.MaxFlows}} } drop
		{{if .TCP}}tcp dport { {{range .TCP}}{{.}}, {{end}} } accept{{end}}
		{{if .UDP}}udp dport { {{range .UDP}}{{.}}, {{end}} } accept{{end}}
		icmp type echo-request accept
		drop
	}

	chain output {
		type filter hook output priority filter; policy accept;
		oifname "lg*" meta skuid != 0 goto from-user
	}
	chain from-user {
		tcp dport 22 accept
		meta l4proto { tcp, udp } reject
		drop
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "lg*" goto to-world
		oifname "lg*" ct state established,related accept
		oifname "lg*" drop
	}
	chain to-world {
		oifname "lg*" drop
		ip daddr @elsewhere drop
		tcp dport 25 reject with tcp reset
		ct state new add @flows { iifname ct count over {{.MaxFlows}} } drop
	}

	chain leave {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {{.Net}} oifname != "lg*" masquerade
	}
}
`

// rules writes the ruleset for these guests on a host that is attached to these networks.
func (c Config) rules(g guests, around []netip.Prefix) string {
	networks := elsewhere()
	for _, p := range around {
		networks = append(networks, p.String())
	}
	byNumber := func(a, b gateway.Identity) int { return cmp.Compare(a.Number, b.Number) }
	var text strings.Builder
	err := template.Must(template.New("").Parse(ruleset)).Execute(&text, map[string]any{
		"Guests": slices.SortedFunc(maps.Values(g), byNumber), "Elsewhere": networks,
		"Gateway": gateway.LinkLocal, "Net": c.Net.Masked(), "TCP": c.TCP, "UDP": c.UDP, "MaxFlows": maxFlows,
	})
	if err != nil {
		panic(err) // the template and its data are both right above
	}
	return text.String()
}
