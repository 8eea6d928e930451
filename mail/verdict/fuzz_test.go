package verdict

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
)

// fields cuts a header into its fields, and the rest of the message behind them, in the plainest way.
func fields(message string) (all []string, rest string) {
	for message != "" {
		line := message
		if i := strings.IndexByte(message, '\n'); i >= 0 {
			line = message[:i+1]
		}
		if line == "\r\n" || line == "\n" {
			return all, message
		}
		if last := len(all) - 1; last >= 0 && (line[0] == ' ' || line[0] == '\t') {
			all[last] += line
		} else {
			all = append(all, line)
		}
		message = message[len(line):]
	}
	return all, ""
}

// forged reports whether a reader of mail would take a field for one that this host has written.
func forged(field string) bool {
	name, value, _ := strings.Cut(field, ":")
	switch name = strings.ToLower(strings.TrimSpace(name)); name {
	case "return-path", "delivered-to", "x-spam":
		return true
	case "authentication-results":
		id, _, err := authres.Parse(strings.Join(strings.Fields(value), " "))
		return err == nil && (strings.EqualFold(id, us) || strings.HasSuffix(strings.ToLower(id), "."+us))
	}
	return strings.HasPrefix(name, "x-lodge-") || field[0] == ' ' || field[0] == '\t'
}

// Whatever a message is and however it comes in, all of it is kept byte for byte but fields that name this
// host or cannot be read; no forged one is kept, and with the header of ours there is exactly one of ours.
// The original can be read again.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		plain, "Return-Path: x\r\n y\r\n" + plain, "Authentication-Results: (mx) \"mx.test\"; spf=pass\r\n\r\nAuthentication-Results: mx.test\r\n",
		" x\r\n\r\n", "From: a@b.c\r", "A: b\n\nReturn-Path: c", "X-Lodge-A :\r\n\tb\r\n\rDelivered-To: c\r\n", "Authentication-Results: a.mx.test 1; none\r\nFrom : x@y",
	} {
		f.Add(seed, []byte{3, 1, 200})
	}
	ours := Verdict{SPF: None, DMARC: None}.Field(us)
	f.Fuzz(func(t *testing.T, in string, pieces []byte) {
		out := new(bytes.Buffer)
		filter := NewFilter(out, us)
		left := in
		for i := 0; left != ""; i++ {
			n := len(left)
			if i < len(pieces) {
				n = min(n, 1+int(pieces[i]))
			}
			if _, err := io.WriteString(filter, left[:n]); err != nil {
				if len(in) <= maxRemoved {
					t.Fatal(err)
				}
				return
			}
			left = left[n:]
		}
		header, err := filter.End()
		before, body := fields(in)
		after, rest := fields(out.String())
		if rest != body {
			t.Fatalf("the body %q has become %q", body, rest)
		}
		froms, removed := 0, 0
		for _, field := range before {
			if name, _, _ := strings.Cut(field, ":"); strings.EqualFold(strings.TrimSpace(name), "from") {
				froms++
			}
			if removed < len(after) && after[removed] == field {
				removed++ // it is kept
			} else if !filter.ours([]byte(field[:min(len(field), maxField)])) {
				t.Fatalf("%q was removed", field)
			}
		}
		if removed != len(after) || (err != nil) != (froms > 1) || froms == 0 && header.From != "" {
			t.Fatalf("%q has become %q; %d From, %v", before, after, froms, err)
		}
		names := 0
		stored, _ := fields(ours + out.String())
		for _, field := range stored {
			if forged(field) {
				names++
			}
		}
		if names != 1 || stored[0] != ours {
			t.Fatalf("%d fields are ours: %q", names, stored)
		}
		original, err := io.ReadAll(filter.Original(bytes.NewReader(out.Bytes())))
		if got := string(original); err != nil || got != in && (got != in+"\r\n" || body != "") || filter.OriginalSize() != int64(len(got)) {
			t.Fatalf("the original of %q is %q, %v", in, got, err)
		}
	})
}

// Whatever a client, an envelope and a message are: no panic, not even in a library's goroutine; an end
// within the time; a header of ours that libraries read; and as many signatures as the library sees.
func FuzzCheck(f *testing.F) {
	signed := sign(f, "example.com", plain, nil)
	f.Add(honest, "example.com", "b", "example.com", signed)
	f.Add("2001:db8::1", "[x]", "", "", sign(f, "example.com", signed, func(o *dkim.SignOptions) { o.BodyCanonicalization = "simple" }))
	f.Add("", "\x00", "a\"b", "x..y", "DKIM-Signature: v=1; h=from; d=; s=;\r\nDKIM-Signature:\r\nFrom: <a@b>, c@d\r\n\r\n")
	f.Add(honest, "h", "l", "macro.example", strings.Replace(signed, "c=relaxed/relaxed", "c=/simple; l=1; q=x:dns/txt; t=-1; x=1", 1))
	c, _ := checker(f, txt("example.com", "v=spf1 ip4:"+honest+" -all"), txt("macro.example", "v=spf1 exists:%{s}.%{l2r-}.%{h}.%{I}.example mx ptr redirect=%{d}"),
		txt("_dmarc.example.com", "v=DMARC1; p=reject"), txt(pkey+"example.com", keyRecord(edKey.Public())))
	f.Fuzz(func(t *testing.T, addr, helo, local, domain, text string) {
		filter, _ := filtered(t, text[:min(len(text), maxRemoved)], 0)
		header, err := filter.End()
		if err != nil {
			return // two From
		}
		stored := filter.out.(*bytes.Buffer).Bytes()
		m := Message{Helo: helo, From: local, Domain: domain, Header: header, Content: filter.Original(bytes.NewReader(stored))}
		m.Remote, _ = netip.ParseAddr(addr)
		done := make(chan Verdict, 1)
		go func() { done <- c.Check(context.Background(), m) }()
		select {
		case v := <-done:
			wellFormed(t, v.Field(us))
			if n := len(v.DKIM); n != min(header.signatures, maxSignatures) && (n != 1 || v.DKIM[0].Domain != "") {
				t.Errorf("%d results of %d signatures: %+v", n, header.signatures, v.DKIM)
			}
			if v.DMARC == Pass && v.Aligned == "" || v.DMARC != Pass && v.Aligned != "" {
				t.Errorf("%+v", v)
			}
		case <-time.After(time.Minute):
			t.Fatal("no verdict")
		}
	})
}

// What is read of a field never fails, whatever it is: a domain of From is one that can be asked for.
func FuzzFields(f *testing.F) {
	f.Add([]byte(`"A" <a@example.com>`))
	f.Add([]byte("(a(b)c) \"mx\\.test\" 1; x"))
	f.Add([]byte("g: a@b.c, <d@e.f>; (x"))
	f.Fuzz(func(t *testing.T, value []byte) {
		domain, address := author(value)
		if domain != "" && hostName(domain) != domain || address != "" && hostName(address[strings.LastIndexByte(address, '@')+1:]) != domain {
			t.Errorf("%q: %q, %q", value, domain, address)
		}
		if id, ok := authservID(string(value)); ok && strings.ContainsAny(id, "\r\n") {
			t.Errorf("%q: %q", value, id)
		}
	})
}
