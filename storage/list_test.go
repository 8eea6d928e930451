package storage

import (
	"strings"
	"testing"
)

// A list that cannot be carried out is refused before the rest of it has arrived.
func TestBadListsEndEarly(t *testing.T) {
	g := newHost(t).guest("blog")
	put(t, g.dummy(), "box", "k", []byte("x"))
	const object = "<Object><Key>k</Key></Object>"
	const part = "<Part><PartNumber>1</PartNumber><ETag>x</ETag></Part>"
	filler := strings.Repeat(" ", 64<<10) // for what reads ahead
	for name, c := range map[string]struct{ path, begin string }{
		"nested":         {"/box?delete", "<Delete>" + strings.Repeat("<Object>", 5000)},
		"1,001 keys":     {"/box?delete", "<Delete>" + strings.Repeat(object, 1001)},
		"10,001 parts":   {"/box/k?uploadId=x", "<CompleteMultipartUpload>" + strings.Repeat(part, 10_001)},
		"many elements":  {"/box?delete", "<Delete><Object>" + strings.Repeat("<a/>", 20_000)},
		"no XML":         {"/box?delete", "hello & goodbye"},
		"nested, parts":  {"/box/k?uploadId=x", strings.Repeat("<a>", 9)},
		"wrong encoding": {"/box?delete", `<?xml version="1.0" encoding="EBCDIC"?><Delete>`},
	} {
		t.Run(name, func(t *testing.T) {
			w := g.wire(t)
			w.head("POST", c.path, 8<<20, nil)
			w.send(c.begin + filler)
			if res := w.answer(); res.status != 400 || !strings.Contains(res.body, "<Code>MalformedXML</Code>") {
				t.Errorf("%d %s", res.status, res.body)
			}
		})
	}
	if got := get(t, g.dummy(), "box", "k"); string(got) != "x" {
		t.Errorf("got %q", got)
	}
}
