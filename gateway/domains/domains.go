// Package domains checks custom domains: whether a name can be one, and whether DNS shows that it
// belongs to a VM.
//
// Parse turns what a person typed into a name in lower case and A-labels, and refuses the host's own
// names, those of this machine, addresses and public suffixes. Prove then asks the host's resolvers
// for one of these records:
//
//   - A CNAME of the name, direct or through others, to a name of the VM.
//   - A TXT record at _lodge.<name> with the VM's token (Token).
//   - A CNAME to the host's domain, or addresses that are all public ones of this host.
//
// The first two name the VM. The third only shows that the name leads to this host, whose other VMs
// could claim it as well: it counts for a caller who owns them all, and for nobody else. A wildcard
// covers names that do not exist yet, so it needs the TXT record, or the CNAME at a random label
// below it, which only a wildcard record answers.
//
// The package never changes a record of a VM, and never takes a failure to answer for a proof.
package domains

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
)

// Time limits of one query, and of all that a proof needs.
const (
	patience      = 3 * time.Second
	totalPatience = 10 * time.Second
)

// Config is what a Verifier needs. Domain is required, and ResolvConf or Servers.
type Config struct {
	Domain     string   // of the host
	ResolvConf string   // resolv.conf(5) of the host's resolvers, which is read for each proof
	Servers    []string // resolvers as host:port, in place of ResolvConf

	// Addrs returns the public addresses of the host, beside those of Domain. The default is those
	// of the network interfaces.
	Addrs func() ([]netip.Addr, error)
}

// Verifier checks custom domains. It is safe for concurrent use.
type Verifier struct{ Config }

// New returns a Verifier.
func New(cfg Config) *Verifier {
	if cfg.Addrs == nil {
		cfg.Addrs = interfaceAddrs
	}
	return &Verifier{cfg}
}

// Proof is a record that proves a domain.
type Proof string

// The proofs.
const (
	ByCNAME   Proof = "cname"   // it leads to a name of the VM
	ByTXT     Proof = "txt"     // it has the VM's token
	ByAddress Proof = "address" // it leads to this host
)

// Prove returns how DNS proves that domain, as Parse returned it, belongs to a VM. byAddress allows
// ByAddress. Errors: KindConflict without a proof, with the records to set as its hint, and
// KindUnavailable when no resolver answers.
func (v *Verifier) Prove(ctx context.Context, vm gateway.VM, domain string, byAddress bool) (Proof, error) {
	ctx, cancel := context.WithTimeout(ctx, totalPatience)
	defer cancel()
	ask, err := v.resolver()
	if err != nil {
		return "", err
	}
	base, wildcard := cutWildcard(domain)
	texts, failedTXT := ask.txt(ctx, txtName(base))
	if slices.Contains(texts, Token(vm.ID, domain)) {
		return ByTXT, nil
	}
	seen, failedCNAME := ask.aliases(ctx, probed(base, wildcard))
	if slices.ContainsFunc(seen, func(target string) bool { return v.isNameOf(vm, target) }) {
		return ByCNAME, nil
	}
	byAddress = byAddress && !wildcard
	var failedAddress error
	if byAddress {
		here, addrs, err := v.leadsHere(ctx, ask, base, seen)
		if here {
			return ByAddress, nil
		}
		seen, failedAddress = append(seen, addrs...), err
	}
	if err := errors.Join(failedTXT, failedCNAME, failedAddress); err != nil {
		return "", unanswered(err)
	}
	return "", v.unproven(vm, domain, seen, byAddress)
}

// isNameOf reports whether a name is one of the VM's below the host's domain.
func (v *Verifier) isNameOf(vm gateway.VM, name string) bool {
	labels, ok := strings.CutSuffix(name, "."+v.Domain)
	if !ok {
		return false
	}
	i := strings.LastIndexByte(labels, '.')
	if i >= 0 {
		return labels[i+1:] == vm.Name
	}
	of, _, err := gateway.SplitHost(labels)
	return err == nil && of == vm.Name
}

// leadsHere reports whether name is an alias of the host's domain, or has public addresses of this
// host and no others. It returns the addresses that it found too.
func (v *Verifier) leadsHere(ctx context.Context, ask *resolver, name string, aliases []string) (here bool, found []string, err error) {
	if slices.Contains(aliases, v.Domain) {
		return true, nil, nil
	}
	addrs, err := ask.addrs(ctx, name)
	if err != nil || len(addrs) == 0 {
		return false, nil, err
	}
	own, err := v.Addrs()
	if err != nil {
		return false, nil, err
	}
	ofDomain, err := ask.addrs(ctx, v.Domain)
	if err != nil {
		return false, nil, err
	}
	own = append(own, ofDomain...)
	here = true
	for _, addr := range addrs {
		found = append(found, addr.String())
		here = here && isPublic(addr) && slices.Contains(own, addr)
	}
	return here, found, nil
}

// isPublic reports whether an address is the same machine's for everyone. A private one proves
// nothing: every network has its own 192.168.0.2.
func isPublic(addr netip.Addr) bool {
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) // RFC 6598
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !shared.Contains(addr)
}

func interfaceAddrs() (all []netip.Addr, err error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, addr := range addrs {
		if prefix, err := netip.ParsePrefix(addr.String()); err == nil {
			all = append(all, prefix.Addr().Unmap())
		}
	}
	return all, nil
}
