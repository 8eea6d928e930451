package verdict

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
)

const (
	us     = "mx.test"
	honest = "192.0.2.1"   // the address that SPF allows
	broken = "127.0.0.1:1" // no DNS server is there
	plain  = "From: A <a@example.com>\r\nTo: x@blog.mx.test\r\nSubject: hello\r\n\r\nbody\r\n\r\n two  words \r\n"
	pkey   = "s._domainkey." // in front of a domain: where its keys are
)

// sent is a message with its client.
type sent struct {
	remote, helo, from string // from is of the envelope, user@domain
	local              bool
	text               string
}

// judge passes a message through a Filter and checks it.
func judge(tb testing.TB, c *Checker, s sent) Verdict {
	tb.Helper()
	stored := new(bytes.Buffer)
	f := NewFilter(stored, us)
	_, err := io.WriteString(f, s.text)
	gatewaytest.Must(tb, err)
	header, err := f.End()
	gatewaytest.Must(tb, err)
	m := Message{Local: s.local, Helo: s.helo, Header: header, Content: f.Original(bytes.NewReader(stored.Bytes()))}
	if at := strings.LastIndexByte(s.from, '@'); at >= 0 {
		m.From, m.Domain = s.from[:at], s.from[at+1:]
	}
	if s.remote != "" {
		m.Remote = netip.MustParseAddr(s.remote)
	}
	return c.Check(tb.Context(), m)
}

// checker asks a DNS server with these records.
func checker(tb testing.TB, records ...string) (*Checker, *domainstest.Server) {
	tb.Helper()
	zone := domainstest.Start(tb, records...)
	return New(NewResolver("", zone.Addr)), zone
}

// txt is a TXT record, in strings of 255 bytes at most.
func txt(name, text string) string {
	var parts []string
	for part := range slices.Chunk([]byte(text), 255) {
		parts = append(parts, `"`+string(part)+`"`)
	}
	return name + ". TXT " + strings.Join(parts, " ")
}

var (
	edKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return key
	})
)

// keyRecord is what a domain publishes for a key.
func keyRecord(key crypto.PublicKey) string {
	if ed, ok := key.(ed25519.PublicKey); ok {
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(ed)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}

// sign signs a message as a domain, with selector s and the Ed25519 key unless change sets others.
func sign(tb testing.TB, domain, text string, change func(*dkim.SignOptions)) string {
	tb.Helper()
	options := &dkim.SignOptions{
		Domain: domain, Selector: "s", Signer: edKey,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	}
	if change != nil {
		change(options)
	}
	signed := new(strings.Builder)
	gatewaytest.Must(tb, dkim.Sign(signed, strings.NewReader(text), options))
	return signed.String()
}

// The header that is written can be read by a library, has one meaning, and its lines are short.
func TestField(t *testing.T) {
	t.Parallel()
	c, _ := checker(t,
		txt("example.com", "v=spf1 ip4:"+honest+" -all"), txt("_dmarc.example.com", "v=DMARC1; p=reject"),
		txt(pkey+"example.com", keyRecord(edKey.Public())),
	)
	for name, tt := range map[string]struct {
		sent
		want string
	}{
		"all pass": {
			sent{remote: honest, from: "b@Example.COM.", text: sign(t, "example.com", plain, nil)},
			"spf=pass smtp.mailfrom=example.com; dkim=pass header.d=example.com; dmarc=pass header.from=example.com",
		},
		"forged": {
			sent{remote: "192.0.2.66", from: "b@example.com", text: plain},
			`spf=fail smtp.mailfrom=example.com; dkim=none; dmarc=fail reason="policy reject" header.from=example.com`,
		},
		"a bounce": {
			sent{remote: honest, helo: "example.com", text: plain},
			"spf=pass smtp.helo=example.com; dkim=none; dmarc=pass header.from=example.com",
		},
		"an odd HELO": {
			sent{remote: honest, helo: "[192.0.2.1]", text: plain},
			`spf=none; dkim=none; dmarc=fail reason="policy reject" header.from=example.com`,
		},
		"no key": {
			sent{remote: honest, from: "b@example.com", text: sign(t, "example.net", plain, nil)},
			`spf=pass smtp.mailfrom=example.com; dkim=permerror reason="no key for signature: lookup s._domainkey.example.net: no such record" header.d=example.net; dmarc=pass header.from=example.com`,
		},
		"by a program of the host": {
			sent{remote: "127.0.0.1", from: "b@example.com", local: true, text: plain},
			"dkim=none; dmarc=none header.from=example.com",
		},
		"by a program, signed": {
			sent{from: "b@example.com", local: true, text: sign(t, "example.com", plain, nil)},
			"dkim=pass header.d=example.com; dmarc=pass header.from=example.com",
		},
		"by a program, without From": {
			sent{from: "b@example.com", local: true, text: "Subject: cron\r\n\r\n"},
			"dkim=none; dmarc=none",
		},
	} {
		field := judge(t, c, tt.sent).Field(us)
		value, ok := strings.CutPrefix(strings.ReplaceAll(field, "\r\n\t", " "), "Authentication-Results: "+us+"; ")
		if value = strings.TrimSuffix(value, "\r\n"); !ok || value != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", name, value, tt.want)
		}
		wellFormed(t, field)
	}
}

// wellFormed checks an Authentication-Results header of ours.
func wellFormed(tb testing.TB, field string) {
	tb.Helper()
	value, ok := strings.CutPrefix(field, "Authentication-Results: ")
	id, results, err := authres.Parse(strings.TrimSpace(strings.ReplaceAll(value, "\r\n", "")))
	if !ok || id != us || err != nil || len(results) < 2 || !strings.HasSuffix(field, "\r\n") {
		tb.Errorf("%q is read as %s with %d results, %v", field, id, len(results), err)
	}
	for i, line := range strings.Split(strings.TrimSuffix(field, "\r\n"), "\r\n") {
		if len(line) > 998 || i > 0 && line[0] != '\t' || strings.ContainsFunc(line[min(i, 1):], func(c rune) bool { return c < ' ' || c > '~' }) {
			tb.Errorf("line %d of %q", i, field)
		}
	}
}

// Whatever the domains ask for, DMARC passes by what is aligned with From, and by nothing else.
func TestDMARC(t *testing.T) {
	t.Parallel()
	const org, sub, other = "example.com", "news.example.com", "example.net"
	for name, tt := range map[string]struct {
		record    string // of example.com and example.co.uk
		from      string // domain in From
		spf, dkim string // domains that pass; empty: none does
		want      Verdict
	}{
		"SPF, same, relaxed":        {"p=reject", org, org, "", Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: org}},
		"SPF, same, strict":         {"p=reject; aspf=s", org, org, "", Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: org}},
		"SPF, below, relaxed":       {"p=reject; aspf=r", org, sub, "", Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: sub}},
		"SPF, below, strict":        {"p=reject; aspf=s", org, sub, "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"SPF, above, relaxed":       {"p=reject", sub, org, "", Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: org}},
		"SPF, above, strict":        {"p=reject; aspf=s", sub, org, "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"SPF, strict for DKIM":      {"p=reject; adkim=s", org, sub, "", Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: sub}},
		"SPF, another":              {"p=reject", org, other, "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"DKIM, same, relaxed":       {"p=reject", org, "", org, Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: org}},
		"DKIM, same, strict":        {"p=reject; adkim=s", org, "", org, Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: org}},
		"DKIM, below, relaxed":      {"p=reject; adkim=r", org, "", sub, Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: sub}},
		"DKIM, below, strict":       {"p=reject; adkim=s", org, "", sub, Verdict{DMARC: Fail, Policy: PolicyReject}},
		"DKIM, above, relaxed":      {"p=reject", sub, "", org, Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: org}},
		"DKIM, above, strict":       {"p=reject; adkim=s", sub, "", org, Verdict{DMARC: Fail, Policy: PolicyReject}},
		"DKIM, another":             {"p=reject", org, "", other, Verdict{DMARC: Fail, Policy: PolicyReject}},
		"both, of others":           {"p=reject", org, other, other, Verdict{DMARC: Fail, Policy: PolicyReject}},
		"SPF of another, DKIM":      {"p=reject", org, other, org, Verdict{DMARC: Pass, Policy: PolicyReject, Aligned: org}},
		"neighbours below a suffix": {"p=reject", "example.co.uk", "evil.co.uk", "evil.co.uk", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"the suffix itself":         {"p=reject", "example.co.uk", "co.uk", "co.uk", Verdict{DMARC: Fail, Policy: PolicyReject}},

		"none":                       {"p=none", org, "", "", Verdict{DMARC: Fail, Policy: PolicyNone}},
		"quarantine":                 {"p=quarantine", org, "", "", Verdict{DMARC: Fail, Policy: PolicyQuarantine}},
		"reject":                     {"p=reject", org, "", "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"below":                      {"p=reject", sub, "", "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"another for below":          {"p=reject; sp=none", sub, "", "", Verdict{DMARC: Fail, Policy: PolicyNone}},
		"a stronger one for below":   {"p=none; sp=reject", sub, "", "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"sp does not count at home":  {"p=none; sp=reject", org, "", "", Verdict{DMARC: Fail, Policy: PolicyNone}},
		"within pct":                 {"p=reject; pct=51", org, "", "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"left out by pct":            {"p=reject; pct=50", org, "", "", Verdict{DMARC: Fail, Policy: PolicyQuarantine}},
		"quarantine, left out":       {"p=quarantine; pct=0", org, "", "", Verdict{DMARC: Fail, Policy: PolicyNone}},
		"none, left out":             {"p=none; pct=0", org, "", "", Verdict{DMARC: Fail, Policy: PolicyNone}},
		"sp, left out":               {"p=none; sp=reject; pct=0", sub, "", "", Verdict{DMARC: Fail, Policy: PolicyQuarantine}},
		"a policy that is no word":   {"p=destroy", org, org, "", Verdict{DMARC: PermError}},
		"without a policy":           {"aspf=s", org, "", "", Verdict{DMARC: PermError}},
		"a share above all":          {"p=reject; pct=101", org, "", "", Verdict{DMARC: PermError}},
		"an alignment of no kind":    {"p=reject; aspf=x", org, "", "", Verdict{DMARC: PermError}},
		"a domain without a record":  {"p=reject", other, other, "", Verdict{DMARC: None}},
		"no record, another passes":  {"p=reject", other, org, org, Verdict{DMARC: None}},
		"no record, nothing passes":  {"p=reject", other, "", "", Verdict{DMARC: None}},
		"a suffix without a record":  {"p=reject", "co.uk", "", "", Verdict{DMARC: None}},
		"spaces around the version":  {" p = reject ", org, "", "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"tags that nobody knows":     {"p=reject; np=none; x=y;", org, "", "", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"the name in another script": {"p=reject", "b\u00fccher.example", "", "", Verdict{DMARC: Fail, Policy: PolicyReject}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var zone []string
			for _, domain := range []string{org, "example.co.uk", "xn--bcher-kva.example"} {
				zone = append(zone, txt("_dmarc."+domain, "v=DMARC1; "+tt.record))
			}
			for _, domain := range []string{org, sub, other, "evil.co.uk", "co.uk"} {
				zone = append(zone, txt(pkey+domain, keyRecord(edKey.Public())), txt(domain, "v=spf1 ip4:"+honest+" -all"))
			}
			c, _ := checker(t, zone...)
			c.dice = func() int { return 50 }
			text := "From: a@" + tt.from + "\r\n\r\nx\r\n"
			if tt.dkim != "" {
				text = sign(t, tt.dkim, text, nil)
			}
			s := sent{remote: honest, helo: "[192.0.2.1]", text: text}
			if tt.spf != "" {
				s.from = "b@" + tt.spf
			}
			got := judge(t, c, s)
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Verdict{}), cmpopts.IgnoreFields(Verdict{}, "SPF", "SPFDomain", "ByHelo", "DKIM", "From", "Proven")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if want := tt.want.DMARC == Fail && tt.want.Policy == PolicyReject; got.Rejected() != want {
				t.Errorf("Rejected is %v", got.Rejected())
			}
			if want := tt.want.DMARC == Pass || name == "a domain without a record"; got.Proven != want {
				t.Errorf("Proven is %v", got.Proven)
			}
			wellFormed(t, got.Field(us))
		})
	}
}

// What is asked of a domain's own record comes before that of the organisation, and several records are
// none.
func TestDMARCRecords(t *testing.T) {
	t.Parallel()
	own := []string{txt("_dmarc.example.com", "v=DMARC1; p=reject; sp=reject"), txt("_dmarc.news.example.com", "v=DMARC1; p=none")}
	two := []string{txt("_dmarc.example.com", "v=DMARC1; p=reject"), txt("_dmarc.example.com", "v=DMARC1; p=none")}
	noise := []string{txt("_dmarc.example.com", "v=DMARC1; p=reject"), txt("_dmarc.example.com", "v=spf1 -all"), txt("_dmarc.example.com", "v=DMARC10; p=none")}
	for name, tt := range map[string]struct {
		records []string
		from    string
		want    Verdict
	}{
		"own":   {own, "news.example.com", Verdict{DMARC: Fail, Policy: PolicyNone}},
		"above": {own, "other.example.com", Verdict{DMARC: Fail, Policy: PolicyReject}},
		"two":   {two, "example.com", Verdict{DMARC: None}},
		"noise": {noise, "example.com", Verdict{DMARC: Fail, Policy: PolicyReject}},
	} {
		c, _ := checker(t, tt.records...)
		got := judge(t, c, sent{remote: honest, helo: "x", text: "From: a@" + tt.from + "\r\n\r\n"})
		if got.DMARC != tt.want.DMARC || got.Policy != tt.want.Policy {
			t.Errorf("%s: %s, %s", name, got.DMARC, got.Policy)
		}
	}
}

// What might have passed if DNS had answered is a temporary error, which never refuses; what cannot have
// passed fails.
func TestTemporaryErrors(t *testing.T) {
	t.Parallel()
	signed := sign(t, "example.com", plain, nil)
	for name, tt := range map[string]struct {
		failing string // zone
		sent
		want string // SPF, DKIM, DMARC
	}{
		"nothing":          {"x.test", sent{from: "b@example.com", text: signed}, "pass pass pass"},
		"all":              {"com", sent{from: "b@example.com", text: signed}, "temperror temperror temperror"},
		"the policy":       {"_dmarc.example.com", sent{from: "b@example.com", text: signed}, "pass pass temperror"},
		"the key":          {"_domainkey.example.com", sent{from: "b@example.net", text: signed}, "none temperror temperror"},
		"the key, SPF":     {"_domainkey.example.com", sent{from: "b@example.com", text: signed}, "pass temperror pass"},
		"SPF":              {"bounce.example.com", sent{from: "b@bounce.example.com", text: plain}, "temperror none temperror"},
		"SPF of another":   {"example.net", sent{from: "b@example.net", text: plain}, "temperror none fail"},
		"a key of another": {"example.net", sent{from: "b@example.org", text: sign(t, "example.net", plain, nil)}, "none temperror fail"},
		"SPF, DKIM passes": {"bounce.example.com", sent{from: "b@bounce.example.com", text: signed}, "temperror pass pass"},
	} {
		c, zone := checker(t, txt("example.com", "v=spf1 ip4:"+honest+" -all"), txt("_dmarc.example.com", "v=DMARC1; p=reject"), txt(pkey+"example.com", keyRecord(edKey.Public())))
		zone.Delegate(tt.failing, broken)
		tt.remote = honest
		v := judge(t, c, tt.sent)
		dkim := None
		if len(v.DKIM) > 0 {
			dkim = v.DKIM[0].Result
		}
		if got := fmt.Sprint(v.SPF, " ", dkim, " ", v.DMARC); got != tt.want || v.Rejected() != (v.DMARC == Fail) {
			t.Errorf("%s: %s, want %s; rejected: %v", name, got, tt.want, v.Rejected())
		}
	}
}
