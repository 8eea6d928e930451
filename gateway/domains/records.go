package domains

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"lodge/gateway"
)

// txtLabel is that of the TXT record, below the name that it proves.
const txtLabel = "_lodge"

// Token is the text of the TXT record that proves a domain to belong to a VM. It counts for that VM
// and that domain alone, so a record for example.com does not prove *.example.com. It is no secret.
func Token(vm gateway.ID, domain string) string {
	sum := sha256.Sum256([]byte("lodge domain\x00" + vm.String() + "\x00" + domain))
	return "lodge-vm=" + hex.EncodeToString(sum[:16])
}

func txtName(base string) string { return txtLabel + "." + base }

// cutWildcard returns the name that a domain is about: example.com for *.example.com.
func cutWildcard(domain string) (base string, wildcard bool) {
	return strings.CutPrefix(domain, "*.")
}

// probed returns the name whose aliases prove a domain. For a wildcard that is a random one below
// it, for which nobody can have set a record of its own.
func probed(base string, wildcard bool) string {
	if !wildcard {
		return base
	}
	random := make([]byte, 16)
	_, _ = rand.Read(random) // crypto/rand.Read never fails (it aborts the program instead)
	return "lodge-" + hex.EncodeToString(random) + "." + base
}

// maxShown is how much of what DNS answered an error repeats.
const maxShown = 4

// unproven is the error for a domain without a proof. Its hint has each record that would be one.
func (v *Verifier) unproven(vm gateway.VM, domain string, seen []string, byAddress bool) error {
	base, wildcard := cutWildcard(domain)
	found := "it has no CNAME, and " + txtName(base) + " has no TXT record for the VM"
	if len(seen) > 0 {
		found = "it leads to " + strings.Join(seen[:min(len(seen), maxShown)], ", ")
	}
	if wildcard {
		found = "a random name below it " + strings.TrimPrefix(found, "it ")
	}
	records := fmt.Sprintf("  %s. CNAME %s.%s.\n  %s. TXT \"%s\"", domain, vm.Name, v.Domain, txtName(base), Token(vm.ID, domain))
	if byAddress {
		records += fmt.Sprintf("\n  %s. A and AAAA: public addresses of this host, and no others", base)
	}
	return gateway.Errorf(gateway.KindConflict, "DNS does not show that %s belongs to %s: %s", domain, vm.Name, found).
		WithHint("Set one of these records, then try again. Resolvers may keep an earlier answer until its TTL ends.\n%s", records)
}

func unanswered(err error) error {
	return gateway.Errorf(gateway.KindUnavailable, "the host's DNS resolvers do not answer").Because(err).
		WithHint("Check /etc/resolv.conf, then try again.")
}
