package verdict

import (
	"strings"
	"testing"
)

// BenchmarkCheck is the time of a signed message of 4 KiB: the Filter, the Check, and its header. DNS is
// asked for the first one.
func BenchmarkCheck(b *testing.B) {
	c, _ := checker(b, txt("example.com", "v=spf1 ip4:"+honest+" -all"), txt("_dmarc.example.com", "v=DMARC1; p=reject"),
		txt(pkey+"example.com", keyRecord(edKey.Public())))
	text := sign(b, "example.com", plain+strings.Repeat(strings.Repeat("x", 62)+"\r\n", 64), nil)
	for b.Loop() {
		if v := judge(b, c, sent{remote: honest, from: "b@example.com", text: text}); len(v.Field(us)) == 0 || v.DMARC != Pass || v.DKIM[0].Result != Pass {
			b.Fatalf("%+v", v)
		}
	}
}
