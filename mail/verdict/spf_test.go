package verdict

import (
	"fmt"
	"strings"
	"testing"
)

// Each result of SPF, by each way there is to name an address.
func TestSPF(t *testing.T) {
	t.Parallel()
	records := []string{
		"host.example. A 192.0.2.1", "host.example. AAAA 2001:db8::1", "mx.example. MX 10 host.example.",
		txt("include.example", "v=spf1 ip4:192.0.2.1 -all"), txt("loop.example", "v=spf1 include:loop.example -all"),
		"b._spf.example. A 127.0.0.2", "nothing.example. A 203.0.113.9",
	}
	for name, tt := range map[string]struct {
		record string // of example.com; empty for none
		remote string
		from   string
		want   Result
	}{
		"pass":                 {"ip4:192.0.2.1 -all", "192.0.2.1", "b@example.com", Pass},
		"mapped":               {"ip4:192.0.2.1 -all", "::ffff:192.0.2.1", "b@example.com", Pass},
		"net":                  {"ip4:192.0.2.0/24 -all", "192.0.2.77", "b@example.com", Pass},
		"IPv6":                 {"ip6:2001:db8::/32 -all", "2001:db8::5", "b@example.com", Pass},
		"a":                    {"a:host.example -all", "2001:db8::1", "b@example.com", Pass},
		"mx":                   {"mx:mx.example -all", "192.0.2.1", "b@example.com", Pass},
		"include":              {"include:include.example -all", "192.0.2.1", "b@example.com", Pass},
		"redirect":             {"redirect=include.example", "192.0.2.2", "b@example.com", Fail},
		"exists":               {"exists:%{l}._spf.example -all", "192.0.2.9", "b@example.com", Pass},
		"exists for another":   {"exists:%{l}._spf.example -all", "192.0.2.9", "c@example.com", Fail},
		"a quoted local part":  {"exists:%{l}._spf.example -all", "192.0.2.9", `b"@"c@example.com`, Fail},
		"fail":                 {"ip4:192.0.2.1 -all", "192.0.2.2", "b@example.com", Fail},
		"softfail":             {"ip4:192.0.2.1 ~all", "192.0.2.2", "b@example.com", SoftFail},
		"neutral":              {"ip4:192.0.2.1 ?all", "192.0.2.2", "b@example.com", Neutral},
		"no end":               {"ip4:192.0.2.1", "192.0.2.2", "b@example.com", Neutral},
		"none":                 {"", "192.0.2.1", "b@example.com", None},
		"null sender":          {"ip4:192.0.2.1 -all", "192.0.2.1", "", Pass}, // by HELO
		"no address":           {"+all", "", "b@example.com", None},
		"a host's name":        {"+all", "192.0.2.1", "b@localhost", None},
		"an address literal":   {"+all", "192.0.2.1", "b@[192.0.2.1]", None},
		"control characters":   {"+all", "192.0.2.1", "b@example.com\r\nx", None},
		"unknown mechanism":    {"bogus -all", "192.0.2.1", "b@example.com", PermError},
		"no address in it":     {"ip4:300.1.1.1 -all", "192.0.2.1", "b@example.com", PermError},
		"include of nothing":   {"include:missing.example -all", "192.0.2.1", "b@example.com", PermError},
		"a loop":               {"include:loop.example -all", "192.0.2.1", "b@example.com", PermError},
		"ten lookups":          {strings.Repeat("a:nothing.example ", 10) + "+all", "192.0.2.1", "b@example.com", Pass},
		"eleven lookups":       {strings.Repeat("a:nothing.example ", 11) + "+all", "192.0.2.1", "b@example.com", PermError},
		"three void lookups":   {"a:v1.example a:v2.example a:v3.example +all", "192.0.2.1", "b@example.com", PermError},
		"a macro without end":  {"exists:%{l -all", "192.0.2.1", "b@example.com", PermError},
		"a record of 20 KB":    {strings.Repeat("ip4:203.0.113.1 ", 1250) + "ip4:192.0.2.1 -all", "192.0.2.1", "b@example.com", Pass},
		"the domain in German": {"ip4:192.0.2.1 -all", "192.0.2.1", "b@b\u00fccher.example", Pass},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone := records
			if tt.record != "" {
				zone = append(zone[:len(zone):len(zone)], txt("example.com", "v=spf1 "+tt.record), txt("xn--bcher-kva.example", "v=spf1 "+tt.record))
			}
			c, _ := checker(t, zone...)
			v := judge(t, c, sent{remote: tt.remote, helo: "example.com", from: tt.from, text: plain})
			if v.SPF != tt.want || v.ByHelo != (tt.from == "") {
				t.Errorf("%s for %q, want %s", v.SPF, v.SPFDomain, tt.want)
			}
		})
	}
}

// Two records are an error, and a record that asks for more than 100 answers gets no more.
func TestSPFTooMuch(t *testing.T) {
	t.Parallel()
	zone := []string{txt("two.example", "v=spf1 +all"), txt("two.example", "v=spf1 -all")}
	record := []string{"v=spf1"}
	for i := range 10 {
		record = append(record, fmt.Sprintf("mx:m%d.example", i))
		for j := range 10 {
			zone = append(zone, fmt.Sprintf("m%d.example. MX 10 h%d-%d.example.", i, i, j), fmt.Sprintf("h%d-%d.example. A 203.0.113.1", i, j))
		}
	}
	c, _ := checker(t, append(zone, txt("greedy.example", strings.Join(record, " ")+" +all"))...)
	for domain, want := range map[string]Result{"two.example": PermError, "greedy.example": TempError} {
		if v := judge(t, c, sent{remote: honest, from: "b@" + domain, text: plain}); v.SPF != want {
			t.Errorf("%s: %s, want %s", domain, v.SPF, want)
		}
	}
}
