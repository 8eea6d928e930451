package verdict

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"lodge/gateway/gatewaytest"
)

// fakeKey is an RSA key of so many bits to which there is no private one.
func fakeKey(bits int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(12345)), E: 65537}
}

// signatures is what a Verdict has of them, in a line.
func signatures(v Verdict) string {
	var all []string
	for _, s := range v.DKIM {
		all = append(all, strings.TrimSpace(fmt.Sprint(s.Result, " ", s.Domain)))
	}
	return strings.Join(all, ", ")
}

// Signatures of a real signer pass, in each form that there is, and whatever breaks one is found.
func TestDKIM(t *testing.T) {
	t.Parallel()
	c, zone := checker(t,
		txt(pkey+"example.com", keyRecord(edKey.Public())), txt("rsa._domainkey.example.com", keyRecord(rsaKey().Public())),
		txt("alias._domainkey.example.org", "not this one"), "s._domainkey.example.org. CNAME s._domainkey.example.com.",
		txt("two._domainkey.example.com", keyRecord(edKey.Public())), txt("two._domainkey.example.com", keyRecord(rsaKey().Public())),
		txt("revoked._domainkey.example.com", "v=DKIM1; p="), txt("junk._domainkey.example.com", "v=DKIM1; p=*"),
		txt("short._domainkey.example.com", keyRecord(fakeKey(512))), txt("long._domainkey.example.com", keyRecord(fakeKey(8192))),
		txt("huge._domainkey.example.com", keyRecord(fakeKey(16384))), txt("even._domainkey.example.com", keyRecord(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 2})),
		txt("web._domainkey.example.com", keyRecord(edKey.Public())+"; s=web"),
	)
	zone.Delegate("away._domainkey.example.com", broken)
	ed := sign(t, "example.com", plain, nil)
	withRSA := func(o *dkim.SignOptions) { o.Signer, o.Selector = rsaKey(), "rsa" }
	by := func(selector string, change func(*dkim.SignOptions)) string {
		return sign(t, "example.com", plain, func(o *dkim.SignOptions) {
			o.Selector = selector
			if change != nil {
				change(o)
			}
		})
	}
	const pass, fail, permerror = "pass example.com", "fail example.com", "permerror example.com"
	for name, tt := range map[string]struct{ text, want string }{
		"Ed25519": {ed, pass},
		"RSA":     {sign(t, "example.com", plain, withRSA), pass},
		"both":    {sign(t, "example.com", ed, withRSA), "pass example.com, pass example.com"},
		"simple": {by("s", func(o *dkim.SignOptions) {
			o.HeaderCanonicalization, o.BodyCanonicalization = dkim.CanonicalizationSimple, dkim.CanonicalizationSimple
		}), pass},
		"by another":       {sign(t, "example.org", plain, nil), "pass example.org"},
		"no body":          {sign(t, "example.com", "From: a@example.com\r\n\r\n", nil), pass},
		"a header alone":   {strings.TrimSuffix(sign(t, "example.com", "From: a@example.com\r\n\r\n", nil), "\r\n"), pass},
		"a header on top":  {"X-Spam: no\r\n" + ed, pass},
		"spaces changed":   {strings.Replace(ed, " two  words ", " two words", 1), pass},
		"headers removed":  {sign(t, "example.com", "Delivered-To: me\r\nAuthentication-Results: "+us+"; dkim=pass\r\n"+plain, nil), pass},
		"removed, between": {sign(t, "example.com", strings.Replace(plain, "\r\nTo:", "\r\nReturn-Path: <x>\r\nTo:", 1), nil), pass},
		"not signed":       {plain, ""},

		"body changed":       {strings.Replace(ed, "two", "three", 1), fail},
		"body longer":        {ed + "more\r\n", fail},
		"subject changed":    {strings.Replace(ed, "hello", "hullo", 1), fail},
		"From changed":       {strings.Replace(ed, "From: A", "From: B", 1), fail},
		"the wrong key":      {sign(t, "example.com", plain, func(o *dkim.SignOptions) { o.Signer = rsaKey() }), permerror},
		"l=":                 {strings.Replace(ed, "DKIM-Signature: ", "DKIM-Signature: l=4; ", 1), fail},
		"expired":            {by("s", func(o *dkim.SignOptions) { o.Expiration = time.Now().Add(-time.Hour) }), permerror},
		"not yet expired":    {by("s", func(o *dkim.SignOptions) { o.Expiration = time.Now().Add(time.Hour) }), pass},
		"no key":             {by("none", nil), permerror},
		"two keys":           {by("two", nil), permerror},
		"revoked":            {by("revoked", nil), permerror},
		"a key of junk":      {by("junk", nil), permerror},
		"a short key":        {by("short", withSigner), permerror},
		"a long key":         {by("long", withSigner), fail},
		"a huge key":         {by("huge", withSigner), permerror},
		"an even key":        {by("even", withSigner), fail},
		"a key for the web":  {by("web", nil), permerror},
		"no answer":          {by("away", nil), "temperror example.com"},
		"SHA-1":              {strings.Replace(ed, "a=ed25519-sha256", "a=ed25519-sha1", 1), permerror},
		"From not signed":    {strings.Replace(ed, "h=From:", "h=X:", 1), permerror},
		"i= of another":      {by("s", func(o *dkim.SignOptions) { o.Identifier = "@example.net" }), permerror},
		"no signature":       {"DKIM-Signature" + strings.Repeat(" ", maxField) + "x: v=1\r\n" + plain, "permerror"},
		"no host name":       {strings.Replace(ed, "d=example.com", "d=example.com/x", 1), "permerror"},
		"tags twice":         {"DKIM-Signature: v=1; v=1\r\n" + plain, "permerror"},
		"no tags":            {"DKIM-Signature\r\n" + plain, "permerror"},
		"a control in d=":    {"DKIM-Signature: v=1; a=rsa-sha256; b=; bh=; h=from; s=s; d=\x01\x7f\r\n" + plain, "permerror"},
		"an endless name":    {strings.Replace(ed, "s=s;", "s="+strings.Repeat("s", 300)+";", 1), permerror},
		"a name with escape": {strings.Replace(ed, "s=s;", `s=s\046x;`, 1), permerror},
	} {
		v := judge(t, c, sent{local: true, text: tt.text})
		if got := signatures(v); got != tt.want {
			t.Errorf("%s: %q, want %q: %+v", name, got, tt.want, v.DKIM)
		}
		wellFormed(t, v.Field(us))
	}
}

func withSigner(o *dkim.SignOptions) { o.Signer = rsaKey() }

// The first 5 signatures are checked, in their order, and only they count.
func TestManySignatures(t *testing.T) {
	t.Parallel()
	c, _ := checker(t, txt(pkey+"example.com", keyRecord(edKey.Public())), txt("_dmarc.example.com", "v=DMARC1; p=reject"))
	good, _, _ := strings.Cut(sign(t, "example.com", plain, nil), "From: A")
	bad := func(from, to int) (all string) {
		for i := from; i < to; i++ {
			all += strings.Replace(good, "d=example.com", fmt.Sprintf("d=x%d.example", i), 1)
		}
		return all
	}
	for name, tt := range map[string]struct {
		text, want string
		dmarc      Result
	}{
		"the first of 100": {good + bad(1, 100), "pass example.com, permerror x1.example, permerror x2.example, permerror x3.example, permerror x4.example", Pass},
		"the 5th":          {bad(1, 5) + good + bad(6, 100), "permerror x1.example, permerror x2.example, permerror x3.example, permerror x4.example, pass example.com", Pass},
		"the 6th":          {bad(1, 6) + good, "permerror x1.example, permerror x2.example, permerror x3.example, permerror x4.example, permerror x5.example", Fail},
	} {
		v := judge(t, c, sent{remote: honest, from: "b@example.net", text: tt.text + plain})
		if got := signatures(v); got != tt.want || v.DMARC != tt.dmarc {
			t.Errorf("%s: %q, DMARC %s", name, got, v.DMARC)
		}
		wellFormed(t, v.Field(us))
	}
}

// Headers that take the library long are not given to it; large ones of real mail are.
func TestLargeHeader(t *testing.T) {
	t.Parallel()
	c, _ := checker(t, txt(pkey+"example.com", keyRecord(edKey.Public())))
	to := func(addresses int) string {
		list := []string{}
		for i := range addresses {
			list = append(list, fmt.Sprintf("somebody-%04d@example.com", i))
		}
		return "To: " + strings.Join(list, ",\r\n ") + "\r\n"
	}
	signature, _, _ := strings.Cut(sign(t, "example.com", plain, nil), "From: A")
	greedy := func(name string) string {
		return name + ": v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.com; s=s; bh=x; b=x; h=from" + strings.Repeat(":a", 20_000) + "\r\n" + strings.Repeat("a:\r\n", 5000)
	}
	const tooLarge = "header too large"
	for name, tt := range map[string]struct{ text, reason string }{
		"2000 recipients":         {sign(t, "example.com", to(2000)+plain, nil), ""},
		"100 Received":            {sign(t, "example.com", strings.Repeat("Received: from a.example (a.example [192.0.2.1])\r\n\tby b.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n", 100)+plain, nil), ""},
		"a long header":           {signature + "X: " + strings.Repeat(strings.Repeat("x", 70)+"\r\n ", 2000) + "\r\n" + plain, tooLarge},
		"many lines in a field":   {signature + "X: " + strings.Repeat("\r\n x", 30_000) + "\r\n" + plain, tooLarge},
		"names and fields":        {greedy("DKIM-Signature") + plain, tooLarge},
		"a name in other letters": {greedy("DKIM-\u017fignature") + plain, tooLarge},
		"a name with space":       {signature + greedy("DKIM-Signature"+strings.Repeat(" ", 5000)) + plain, tooLarge},
		"a name with lines":       {signature + greedy("DKIM-Signature"+strings.Repeat("\r\n ", 2000)) + plain, tooLarge},
	} {
		v := judge(t, c, sent{local: true, text: tt.text})
		if len(v.DKIM) != 1 || v.DKIM[0].Reason != tt.reason || (v.DKIM[0].Result == Pass) != (tt.reason == "") {
			t.Errorf("%s: %+v", name, v.DKIM)
		}
	}
}

// counted counts what is read.
type counted struct {
	io.Reader
	bytes int
}

func (r *counted) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bytes += n
	return n, err
}

// The library holds white space in case the body goes on: after 64 KiB of it no more is read.
func TestWhiteSpaceBomb(t *testing.T) {
	t.Parallel()
	c, _ := checker(t, txt(pkey+"example.com", keyRecord(edKey.Public())))
	for name, blank := range map[string]string{"lines": "\r\n", "spaces": " ", "both": " \t\r\n"} {
		text := sign(t, "example.com", "From: a@example.com\r\n\r\nx"+strings.Repeat(blank, 1<<20/len(blank))+"\r\n", nil)
		for _, text := range []string{text, sign(t, "example.com", text, nil)} { // one after the other, and in parallel
			f := NewFilter(io.Discard, us)
			_, err := io.WriteString(f, text)
			gatewaytest.Must(t, err)
			header, err := f.End()
			gatewaytest.Must(t, err)
			content := &counted{Reader: f.Original(strings.NewReader(text))}
			v := c.Check(t.Context(), Message{Local: true, Header: header, Content: content})
			if len(v.DKIM) != 1 || v.DKIM[0] != (Signature{Result: PermError, Reason: errBlank.Error()}) || content.bytes > 256<<10 {
				t.Errorf("%s: %+v after %d bytes", name, v.DKIM, content.bytes)
			}
		}
	}
}

// A message that cannot be read, or not in time, is a temporary error, and nothing is left behind.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	c, _ := checker(t, txt(pkey+"example.com", keyRecord(edKey.Public())), txt("_dmarc.example.com", "v=DMARC1; p=reject"))
	text := sign(t, "example.com", sign(t, "example.com", plain, nil), nil)
	header := Header{From: "example.com", signatures: 2}
	for name, rest := range map[string]func(stop func()) io.Reader{
		"a broken disk": func(func()) io.Reader { return iotest.ErrReader(errors.New("input/output error")) },
		"too slow":      func(stop func()) io.Reader { return &endless{stop: stop, after: 10} },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		content := io.MultiReader(strings.NewReader(text), rest(cancel))
		v := c.Check(ctx, Message{Remote: remote(honest), Domain: "example.net", Header: header, Content: content})
		cancel()
		if v.DMARC != TempError || signatures(v) != "temperror" {
			t.Errorf("%s: %+v", name, v)
		}
	}
	gatewaytest.WaitFor(t, "the goroutines of the library", func() bool {
		stacks := make([]byte, 1<<20)
		return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("dkim.parallelVerify"))
	})
}

// endless is a body that never ends; after some reads it calls stop.
type endless struct {
	stop  func()
	after int
}

func (r *endless) Read(p []byte) (int, error) {
	if r.after--; r.after == 0 {
		r.stop()
	}
	return copy(p, "x"), nil
}
