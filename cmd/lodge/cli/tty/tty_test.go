package tty

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"text":                  {"blog, Grüße, 日本", "blog, Grüße, 日本"},
		"title":                 {"a\x1b]0;root\ab", "a^[]0;root^Gb"},
		"colour":                {"\x1b[31mred", "^[[31mred"},
		"lines and cells":       {"a\tb\r\nc", "a^Ib^M^Jc"},
		"NUL and DEL":           {"\x00\x7f", "^@^?"},
		"C1 as UTF-8":           {"\u009b31m\u0085", "<U+009B>31m<U+0085>"},
		"C1 as a byte":          {"\x9b31m", "<9b>31m"},
		"broken UTF-8":          {"\xc3(\xe2\x82", "<c3>(<e2><82>"},
		"replacement character": {"\ufffd", "\ufffd"},
		"right to left":         {"\u202egpj.exe\u2069", "<U+202E>gpj.exe<U+2069>"},
		"line separator":        {"a\u2028b", "a<U+2028>b"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Line(test.in); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWriter(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"a boot":                {"[\x1b[0;32m  OK  \x1b[0m] Started\r\n\tx\n", "[\x1b[0;32m  OK  \x1b[0m] Started\r\n\tx\n"},
		"title":                 {"\x1b]0;root\a", "^[]0;root^G"},
		"clipboard":             {"\x1b]52;c;cm0gLXJm\x1b\\", "^[]52;c;cm0gLXJm^[\\"},
		"clear":                 {"\x1b[2J\x1b[H\x1bc", "^[[2J^[[H^[c"},
		"asks for an answer":    {"\x1b[c\x1b[6n\x05", "^[[c^[[6n^E"},
		"8-bit CSI":             {"\u009b2J\x9b2J", "<U+009B>2J<9b>2J"},
		"8-bit OSC":             {"\x9d0;x\x9c", "<9d>0;x<9c>"},
		"bell and backspace":    {"a\bb\a", "a^Hb^G"},
		"colours of 24 bits":    {"\x1b[38:2::1:2:3mx\x1b[m", "\x1b[38:2::1:2:3mx\x1b[m"},
		"a colour that stays":   {"\x1b[1mbold", "\x1b[1mbold\x1b[0m"},
		"private parameters":    {"\x1b[?25l\x1b[>4;2m", "^[[?25l^[[>4;2m"},
		"intermediate bytes":    {"\x1b[1 m", "^[[1 m"},
		"cut off":               {"x\x1b[1", "x^[[1"},
		"cut off after ESC":     {"x\x1b", "x^["},
		"cut off in a letter":   {"\xe2\x82", "<e2><82>"},
		"longer than a colour":  {"\x1b[" + strings.Repeat("1", 80) + "m", "^[[" + strings.Repeat("1", 80) + "m"},
		"ESC within a sequence": {"\x1b[\x1b[1;1m\x1b[0m", "^[[\x1b[1;1m\x1b[0m"},
	} {
		t.Run(name, func(t *testing.T) {
			for size := 1; size <= len(test.in); size++ {
				if got := written(t, test.in, size); got != test.want {
					t.Fatalf("in chunks of %d bytes: got %q, want %q", size, got, test.want)
				}
			}
		})
	}
}

// The start of a sequence waits for its end, and no longer than it has to.
func TestWriterHolds(t *testing.T) {
	var out strings.Builder
	w := NewWriter(&out)
	for _, step := range []struct{ in, want string }{
		{"a\x1b", "a"}, {"[3", "a"}, {"1mb", "a\x1b[31mb"}, {"\xc3", "a\x1b[31mb"}, {"\xbc", "a\x1b[31mbü"},
	} {
		if _, err := w.Write([]byte(step.in)); err != nil || out.String() != step.want {
			t.Errorf("after %q: %q, %v", step.in, out.String(), err)
		}
	}
}

// Whatever comes in, what goes out is UTF-8 that has no control character but CR, LF, TAB and whole
// SGR sequences; text without control characters is not changed; and where the input was cut into
// chunks makes no difference.
func FuzzWriter(f *testing.F) {
	f.Add("[\x1b[0;32m  OK  \x1b[0m]\r\n\x1b]0;title\a\u009b2J\x9bü", 3)
	f.Add("\x1b[\x1b[1m\x1b", 1)
	f.Add("\u202e\xff\xc3", 2)
	colours := regexp.MustCompile("\x1b\\[[0-9;:]{0,61}m")
	f.Fuzz(func(t *testing.T, in string, size int) {
		out := written(t, in, max(len(in), 1))
		if plain := colours.ReplaceAllString(out, ""); unsafe(plain, "\r\n\t") {
			t.Errorf("%q became %q", in, out)
		}
		if !unsafe(in, "\r\n\t") && out != in {
			t.Errorf("harmless %q became %q", in, out)
		}
		if size > 0 {
			if cut := written(t, in, size); cut != out {
				t.Errorf("%q became %q, in chunks of %d %q", in, out, size, cut)
			}
		}
		if line := Line(in); unsafe(line, "") || !unsafe(in, "") && line != in {
			t.Errorf("%q became the line %q", in, line)
		}
	})
}

func unsafe(s, allowed string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) && reorders(r) || r == '\u2028' || r == '\u2029') &&
			!strings.ContainsRune(allowed, r)
	})
}

// written is what a Writer makes of in, given in chunks of size bytes.
func written(t *testing.T, in string, size int) string {
	t.Helper()
	var out strings.Builder
	w := NewWriter(&out)
	for in != "" {
		n := min(size, len(in))
		if _, err := w.Write([]byte(in[:n])); err != nil {
			t.Fatal(err)
		}
		in = in[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
