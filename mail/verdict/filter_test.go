package verdict

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"lodge/gateway/gatewaytest"
)

// filtered passes a message through a Filter, in pieces of a size; 0 is all at once.
func filtered(tb testing.TB, text string, piece int) (f *Filter, stored []byte) {
	tb.Helper()
	out := new(bytes.Buffer)
	f = NewFilter(out, us)
	for len(text) > 0 {
		n := len(text)
		if piece > 0 {
			n = min(n, piece)
		}
		wrote, err := f.Write([]byte(text[:n]))
		if gatewaytest.Must(tb, err); wrote != n {
			tb.Fatalf("wrote %d of %d", wrote, n)
		}
		text = text[n:]
	}
	return f, out.Bytes()
}

// What only this host may write is removed, and nothing else, however the message comes in.
func TestFilter(t *testing.T) {
	t.Parallel()
	const from = "From: a@example.com\r\n"
	long := strings.Repeat("x", maxField)
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":            {"", ""},
		"an empty line":      {"\r\n", "\r\n"},
		"no header":          {"\r\nReturn-Path: x\r\n", "\r\nReturn-Path: x\r\n"},
		"no body":            {from, from},
		"no line end":        {from + "X: y", from + "X: y"},
		"the body":           {from + "\r\nReturn-Path: x\r\n\r\n", from + "\r\nReturn-Path: x\r\n\r\n"},
		"Return-Path":        {"Return-Path: <x>\r\n" + from + "\r\n", from + "\r\n"},
		"Delivered-To":       {from + "delivered-TO:x\r\n\r\n", from + "\r\n"},
		"X-Spam":             {"X-spam: No\r\n" + from + "X-Spam-Score: 1\r\n\r\n", from + "X-Spam-Score: 1\r\n\r\n"},
		"space before colon": {from + "Delivered-To \t: x\r\n\r\n", from + "\r\n"},
		"no colon":           {from + "Delivered-To\r\n\r\n", from + "\r\n"},
		"a longer name":      {from + "Delivered-Too: x\r\n\r\n", from + "Delivered-Too: x\r\n\r\n"},
		"folded":             {from + "Return-Path:\r\n <x>\r\n\ty\r\nX: z\r\n\r\n", from + "X: z\r\n\r\n"},
		"X-Lodge-Vm":         {"X-LODGE-vm: x\r\n" + from + "X-Lodge: x\r\n\r\n", from + "X-Lodge: x\r\n\r\n"},
		"lines on top":       {" folded\r\n\tmore\r\n" + from + "\r\n", from + "\r\n"},
		"the last one":       {from + "Return-Path: <x>", from},
		"long and removed":   {from + "Return-Path: " + long + long + "\r\n\r\n", from + "\r\n"},
		"long and kept":      {from + "X: " + long + long + "\r\n\r\n", from + "X: " + long + long + "\r\n\r\n"},
		"LF alone":           {from + "\nReturn-Path: x\r\n", from + "\nReturn-Path: x\r\n"},
		"CR alone":           {from + "\rReturn-Path: x\r\n\r\n", from + "\r\n"},
		"CR at the end":      {from + "\r", from + "\r"},

		"results of ours":         {from + "Authentication-Results: mx.test; spf=pass\r\n\r\n", from + "\r\n"},
		"in upper case":           {from + "AUTHENTICATION-RESULTS: MX.TEST; spf=pass\r\n\r\n", from + "\r\n"},
		"of a VM":                 {from + "Authentication-Results: blog.mx.test; spf=pass\r\n\r\n", from + "\r\n"},
		"of another":              {from + "Authentication-Results: example.com; spf=pass\r\n\r\n", from + "Authentication-Results: example.com; spf=pass\r\n\r\n"},
		"of a like name":          {from + "Authentication-Results: evilmx.test; spf=pass\r\n\r\n", from + "Authentication-Results: evilmx.test; spf=pass\r\n\r\n"},
		"with a version":          {from + "Authentication-Results: mx.test 1; spf=pass\r\n\r\n", from + "\r\n"},
		"with a version, tight":   {from + "Authentication-Results: mx.test/1; spf=pass\r\n\r\n", from + "\r\n"},
		"with a final dot":        {from + "Authentication-Results: mx.test.; spf=pass\r\n\r\n", from + "\r\n"},
		"with comments":           {from + "Authentication-Results: (a (b\\)) c)\r\n (d) mx.test (e); spf=pass\r\n\r\n", from + "\r\n"},
		"quoted":                  {from + "Authentication-Results: \"mx.t\\est\"; spf=pass\r\n\r\n", from + "\r\n"},
		"folded first":            {from + "Authentication-Results:\r\n\tmx.test; spf=pass\r\n\r\n", from + "\r\n"},
		"behind another space":    {from + "Authentication-Results: \u00a0mx.test; spf=pass\r\n\r\n", from + "\r\n"},
		"of nobody":               {from + "Authentication-Results: ; spf=pass\r\n\r\n", from + "\r\n"},
		"in an endless comment":   {from + "Authentication-Results: (mx.test; spf=pass\r\n\r\n", from + "\r\n"},
		"in endless quotes":       {from + "Authentication-Results: \"mx.test; spf=pass\r\n\r\n", from + "\r\n"},
		"behind a long comment":   {from + "Authentication-Results: (" + long + ") mx.test; spf=pass\r\n\r\n", from + "\r\n"},
		"our name in the comment": {from + "Authentication-Results: example.com (mx.test); spf=pass\r\n\r\n", from + "Authentication-Results: example.com (mx.test); spf=pass\r\n\r\n"},
		"of ARC":                  {from + "ARC-Authentication-Results: i=1; mx.test; spf=pass\r\n\r\n", from + "ARC-Authentication-Results: i=1; mx.test; spf=pass\r\n\r\n"},
	} {
		for _, piece := range []int{0, 1, 2, 7} {
			f, stored := filtered(t, tt.in, piece)
			_, err := f.End()
			gatewaytest.Must(t, err)
			out := f.out.(*bytes.Buffer).Bytes()
			if string(out) != tt.want || f.Size() != int64(len(out)) || !bytes.HasPrefix(out, stored) {
				t.Errorf("%s in pieces of %d: %.200q, %d bytes", name, piece, out, f.Size())
			}
			original, err := io.ReadAll(f.Original(bytes.NewReader(out)))
			gatewaytest.Must(t, err)
			if got := string(original); got != tt.in && got != tt.in+"\r\n" || f.OriginalSize() != int64(len(got)) {
				t.Errorf("%s in pieces of %d: the original is %.200q, %d bytes", name, piece, got, f.OriginalSize())
			}
		}
	}
}

// The domain of From is that of all its addresses, however it is written; else there is none.
func TestFrom(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{
		"From: a@Example.com\r\n":                                 "example.com",
		"FROM : A <a@example.com>\r\n":                            "example.com",
		"From:\r\n \"A, B\"\r\n <a@example.com> (c)\r\n":          "example.com",
		"From: A, Inc. <a@example.com>\r\n":                       "example.com",
		"From: =?x-odd?q?=E9?= <a@example.com>\r\n":               "example.com",
		"From: \xff <a@example.com>\r\n":                          "example.com",
		"From: \u00e9 <a@b\u00fccher.example.>\r\n":               "xn--bcher-kva.example",
		"From: ceo@bank.example <a@example.com>\r\n":              "example.com", // what counts is where a reply goes
		"From: \"ceo@bank.example\" <a@example.com>\r\n":          "example.com",
		"From: a@example.com, b@example.com\r\n":                  "example.com",
		"From: a@example.com, b@bank.example\r\n":                 "",
		"From: g: a@example.com, b@bank.example;\r\n":             "",
		"From: <a@example.com> <b@bank.example>\r\n":              "",
		"From: undisclosed:;\r\n":                                 "",
		"From: <>\r\n":                                            "",
		"From: root\r\n":                                          "",
		"From: a@[192.0.2.1]\r\n":                                 "",
		"From: a@exa mple.com\r\n":                                "",
		"From\r\n":                                                "",
		"Subject: x\r\n":                                          "",
		"From: " + strings.Repeat("x", maxField) + " <a@b.c>\r\n": "",
	} {
		for _, piece := range []int{0, 1} {
			f, _ := filtered(t, from+"\r\nFrom: b@other.example\r\n", piece)
			if header, err := f.End(); err != nil || header.From != want {
				t.Errorf("%.80q: %q, %v", from, header.From, err)
			}
		}
	}
	for _, two := range []string{"From: a@example.com\r\nFrom: a@example.com\r\n", "From: a@b.c\r\nX: y\r\nfrom\t:\r\n d@e.f\r\n", "From: a@b.c\r\nFROM\r\n", "From: a@b.c\r\nFrom" + strings.Repeat(" ", maxField) + ": d@e.f\r\n"} {
		f, _ := filtered(t, two, 0)
		_, err := f.End()
		if _, ok := errors.AsType[Refused](err); !ok {
			t.Errorf("%.80q: %v", two, err)
		}
	}
}

// What is held in memory to be removed has a limit, in one field and in many.
func TestTooMuchToRemove(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"Return-Path: x\r\n", " x\r\n"} {
		out := new(bytes.Buffer)
		f := NewFilter(out, us)
		_, err := io.Copy(f, iotest.HalfReader(strings.NewReader("Return-Path: x\r\n"+strings.Repeat(line, 20_000))))
		if _, ok := errors.AsType[Refused](err); !ok || out.Len() > 0 || len(f.removed) > 1 || len(f.removed[0].text) > maxRemoved {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// The last field of a message without a body is decided on at its end, where the limit is the same.
func TestTooMuchToRemoveAtEnd(t *testing.T) {
	t.Parallel()
	const last = "X-Lodge-Last: x"
	for excess := range 2 {
		text := strings.Repeat("X-Lodge-A: "+strings.Repeat("x", 87)+"\r\n", 655)
		text = "X-Lodge-B: " + strings.Repeat("y", maxRemoved-len(text)-len(last)-len("X-Lodge-B: \r\n")+excess) + "\r\n" + text + last
		f, _ := filtered(t, text, 0)
		_, err := f.End()
		if excess > 0 {
			if _, ok := errors.AsType[Refused](err); !ok {
				t.Errorf("%d bytes are removed: %v", len(text), err)
			}
			continue
		}
		gatewaytest.Must(t, err)
		original, err := io.ReadAll(f.Original(bytes.NewReader(nil)))
		gatewaytest.Must(t, err)
		if string(original) != text+"\r\n" || f.OriginalSize() != int64(len(original)) {
			t.Errorf("the original has %d bytes of %d, and its size is %d", len(original), len(text)+2, f.OriginalSize())
		}
	}
}

// An error of the disk is passed on as it is.
func TestFilterFullDisk(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left on device")
	f := NewFilter(failing{full}, us)
	_, err := io.WriteString(f, "X: y\r\nZ")
	if !errors.Is(err, full) {
		t.Error(err)
	}
	f = NewFilter(failing{full}, us)
	_, err = io.WriteString(f, "X: y")
	gatewaytest.Must(t, err)
	if _, err := f.End(); !errors.Is(err, full) {
		t.Error(err)
	}
}

type failing struct{ error }

func (w failing) Write([]byte) (int, error) { return 0, w.error }
