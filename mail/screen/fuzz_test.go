package screen

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzAnswer: whatever rspamd answers, what is refused has a text that fits into one line of a
// reply, and nothing is refused for good unless the operator wants it.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"action": "reject", "messages": {"smtp_message": "no\r\n250 OK"}}`))
	f.Add([]byte(`{"action": "soft reject", "messages": {"smtp_message": "\u00e4 \u0000"}}`))
	f.Add([]byte(`{"action": ["reject"], "messages": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := decodeAnswer(text)
		for _, s := range []*Screen{{}, {config: Config{Reject: true}}} {
			advice, told := s.follow(a)
			if err != nil && advice != Accept || advice == Reject && !s.config.Reject {
				t.Errorf("advice %d", advice)
			}
			if len(told) > maxText || strings.Trim(told, asciiText) != "" || told != "" && advice < Later {
				t.Errorf("text %q of advice %d", told, advice)
			}
		}
	})
}

// asciiText has all that a reply may have.
const asciiText = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"

// FuzzListedName: an address has a name of its own in a list, which DNS can be asked for.
func FuzzListedName(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1})
	f.Add([]byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		name := listedName("bl.example", addr.Unmap())
		labels, valid := dns.IsDomainName(name)
		if back, _, _ := strings.Cut(name, ".bl.example"); !valid || labels != 2+len(strings.Split(back, ".")) || labels != 6 && labels != 34 {
			t.Errorf("%s: %s", addr, name)
		}
	})
}
