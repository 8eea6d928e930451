package domains_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"lodge/gateway"
	"lodge/gateway/domains"
	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
)

func machine(name string) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}}
}

func TestProve(t *testing.T) {
	server := domainstest.Start(t)
	v := verifier(server.Addr)
	v.Addrs = func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("192.168.7.7"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	blog, shop := machine("blog"), machine("shop")
	token := func(vm gateway.VM, domain string) string { return ` TXT "` + domains.Token(vm.ID, domain) + `"` }
	const app, wild, here, yes, no = "app.example.com", "*.example.com", "app.example.com. A 203.0.113.5", true, false
	for name, tt := range map[string]struct {
		domain    string
		byAddress bool
		records   []string
		want      domains.Proof
	}{
		"nothing":                     {app, yes, nil, ""},
		"its name":                    {app, no, []string{"app.example.com. CNAME Blog." + hostDomain + "."}, domains.ByCNAME},
		"a port of it":                {app, no, []string{"app.example.com. CNAME 8080-blog." + hostDomain + "."}, domains.ByCNAME},
		"a name below it":             {app, no, []string{"app.example.com. CNAME a.b.blog." + hostDomain + "."}, domains.ByCNAME},
		"through another name":        {app, no, []string{"app.example.com. CNAME x.example.org.", "x.example.org. CNAME blog." + hostDomain + "."}, domains.ByCNAME},
		"a loop":                      {app, no, []string{"app.example.com. CNAME x.example.org.", "x.example.org. CNAME app.example.com."}, ""},
		"another VM":                  {app, yes, []string{"app.example.com. CNAME shop." + hostDomain + "."}, ""},
		"another VM's name below":     {app, yes, []string{"app.example.com. CNAME blog.shop." + hostDomain + "."}, ""},
		"another VM with a like name": {app, yes, []string{"app.example.com. CNAME myblog." + hostDomain + "."}, ""},
		"another host":                {app, yes, []string{"app.example.com. CNAME blog." + hostDomain + ".evil.org."}, ""},

		"its token":                  {app, no, []string{"_lodge.app.example.com." + token(blog, app)}, domains.ByTXT},
		"its token among others":     {app, no, []string{`_lodge.app.example.com. TXT "v=spf1"`, "_lodge.app.example.com." + token(blog, app)}, domains.ByTXT},
		"its token elsewhere":        {app, yes, []string{"app.example.com." + token(blog, app), "_lodge.example.com." + token(blog, app)}, ""},
		"another VM's token":         {app, yes, []string{"_lodge.app.example.com." + token(shop, app)}, ""},
		"its token for another name": {app, yes, []string{"_lodge.app.example.com." + token(blog, "example.com")}, ""},

		"an address of the host":            {app, yes, []string{here}, domains.ByAddress},
		"the same for a caller of one VM":   {app, no, []string{here}, ""},
		"an address of the domain":          {app, yes, []string{"app.example.com. AAAA 2001:db8::5", hostDomain + ". AAAA 2001:db8::5"}, domains.ByAddress},
		"an address through another name":   {app, yes, []string{"app.example.com. CNAME x.example.org.", "x.example.org. A 203.0.113.5"}, domains.ByAddress},
		"the domain":                        {app, yes, []string{"app.example.com. CNAME " + hostDomain + "."}, domains.ByAddress},
		"the domain for a caller of one VM": {app, no, []string{"app.example.com. CNAME " + hostDomain + "."}, ""},
		"an address elsewhere":              {app, yes, []string{"app.example.com. A 198.51.100.1"}, ""},
		"one address here, one elsewhere":   {app, yes, []string{here, "app.example.com. AAAA 2001:db8::99"}, ""},
		"a private address of the host":     {app, yes, []string{"app.example.com. A 192.168.7.7"}, ""},
		"loopback":                          {app, yes, []string{"app.example.com. A 127.0.0.1"}, ""},

		"a wildcard's name":                      {wild, no, []string{"*.example.com. CNAME blog." + hostDomain + "."}, domains.ByCNAME},
		"a wildcard of another VM":               {wild, yes, []string{"*.example.com. CNAME shop." + hostDomain + "."}, ""},
		"a wildcard, the bare name only":         {wild, yes, []string{"example.com. CNAME blog." + hostDomain + "."}, ""},
		"a wildcard, one name only":              {wild, yes, []string{"www.example.com. CNAME blog." + hostDomain + "."}, ""},
		"a wildcard's token":                     {wild, no, []string{"_lodge.example.com." + token(blog, wild)}, domains.ByTXT},
		"a wildcard, the bare name's token":      {wild, yes, []string{"_lodge.example.com." + token(blog, "example.com")}, ""},
		"a wildcard, an address":                 {wild, yes, []string{"*.example.com. A 203.0.113.5"}, ""},
		"a wildcard, the domain":                 {wild, yes, []string{"*.example.com. CNAME " + hostDomain + "."}, ""},
		"the bare name with a wildcard's record": {"example.com", yes, []string{"*.example.com. CNAME blog." + hostDomain + ".", "_lodge.example.com." + token(blog, wild)}, ""},
	} {
		server.Set(t, tt.records...)
		got, err := v.Prove(t.Context(), blog, tt.domain, tt.byAddress)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
		}
	}
}

// The error has the record to set, and setting it is enough.
func TestProveNamesTheRecords(t *testing.T) {
	blog := machine("blog")
	for domain, found := range map[string]string{"app.example.com": "198.51.100.1", "*.example.com": "cdn.example.org"} {
		for _, kind := range []string{"CNAME", "TXT"} {
			server := domainstest.Start(t, "app.example.com. A 198.51.100.1", "*.example.com. CNAME cdn.example.org.")
			_, err := verifier(server.Addr).Prove(t.Context(), blog, domain, true)
			refused, ok := errors.AsType[*gateway.Error](err)
			if !ok || !strings.Contains(refused.Msg, found) {
				t.Fatalf("%s: %v", domain, err)
			}
			var record string
			for line := range strings.SplitSeq(refused.Hint, "\n") {
				if strings.Contains(line, " "+kind+" ") {
					record = strings.TrimSpace(line)
				}
			}
			server.Set(t, record)
			if _, err := verifier(server.Addr).Prove(t.Context(), blog, domain, false); err != nil {
				t.Errorf("%s with %q: %v", domain, record, err)
			}
		}
	}
}

// No answer is no proof, and is not taken for a missing record.
func TestProveWithoutAnAnswer(t *testing.T) {
	server := domainstest.Start(t, "app.example.com. CNAME shop."+hostDomain+".")
	blog := machine("blog")
	server.Fail(dns.RcodeServerFailure)
	if proof, err := verifier(server.Addr).Prove(t.Context(), blog, "app.example.com", true); gateway.KindOf(err) != gateway.KindUnavailable || proof != "" {
		t.Errorf("SERVFAIL: %q, %v", proof, err)
	}
	absent, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, absent.Close())
	if proof, err := verifier(absent.LocalAddr().String()).Prove(t.Context(), blog, "app.example.com", true); gateway.KindOf(err) != gateway.KindUnavailable || proof != "" {
		t.Errorf("a resolver that does not run: %q, %v", proof, err)
	}
	if _, err := verifier().Prove(t.Context(), blog, "app.example.com", true); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("no resolvers: %v", err)
	}
	// The second resolver is asked when the first fails.
	second := domainstest.Start(t, "app.example.com. CNAME blog."+hostDomain+".")
	if _, err := verifier(server.Addr, second.Addr).Prove(t.Context(), blog, "app.example.com", false); err != nil {
		t.Errorf("the second resolver: %v", err)
	}
}

// An answer that does not fit into a datagram is read by TCP.
func TestProveByTCP(t *testing.T) {
	blog := machine("blog")
	records := []string{`_lodge.app.example.com. TXT "` + domains.Token(blog.ID, "app.example.com") + `"`}
	for i := range 40 {
		records = append(records, fmt.Sprintf(`_lodge.app.example.com. TXT "%s %d"`, strings.Repeat("x", 50), i))
	}
	server := domainstest.Start(t, records...)
	if proof, err := verifier(server.Addr).Prove(t.Context(), blog, "app.example.com", false); proof != domains.ByTXT {
		t.Errorf("%q, %v", proof, err)
	}
}
