package s3

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// countingReader counts what is read of an endless text.
type countingReader struct{ n int }

func (c *countingReader) Read(p []byte) (int, error) {
	c.n += len(p)
	return copy(p, strings.Repeat("x", len(p))), nil
}

// A form is signed by its fields, so all that is before its file is read for anybody: it is limited,
// wherever the bytes are.
func TestFormBeforeItsFile(t *testing.T) {
	for name, begin := range map[string]string{
		"header": "--x\r\nContent-Disposition: form-data; name=\"a\"\r\nX-A: ",
		"name":   "--x\r\nContent-Disposition: form-data; name=\"", "value": "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n",
		"name of the file": "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"",
	} {
		rest := &countingReader{}
		r := formRequest("")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(begin), io.LimitReader(rest, 1<<20), strings.NewReader("\"\r\n\r\nv\r\n--x\r\n")))
		_, err := ReadForm(r)
		if known, _ := AsError(err); err == nil || known.Status != http.StatusBadRequest || known.Code != "MaxPostPreDataLengthExceeded" {
			t.Errorf("%s: %v", name, err)
		}
		if rest.n > maxFormBytes {
			t.Errorf("%s: %d bytes were read", name, rest.n)
		}
	}
	file := strings.Repeat("y", 2*maxFormBytes)
	form, err := ReadForm(formRequest("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" + file + "\r\n--x--\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(form.file); err != nil || string(got) != file {
		t.Errorf("a long file: %d bytes, %v", len(got), err)
	}
}

// The name of the file is put in for each ${filename}, but never to make a key that is too long.
func TestFormKey(t *testing.T) {
	for _, c := range []struct{ pattern, name, want, code string }{
		{"up/${filename}", "f", "up/f", ""},
		{"${filename}${filename}", "f", "ff", ""},
		{"k", strings.Repeat("f", 2000), "k", ""},
		{"${filename}", strings.Repeat("f", 1024), strings.Repeat("f", 1024), ""},
		{"${filename}", strings.Repeat("f", 1025), "", "KeyTooLongError"},
		{strings.Repeat("${filename}", 5000), strings.Repeat("f", 10_000), "", "KeyTooLongError"},
		{"", "f", "", "InvalidArgument"},
		{"${filename}", "", "", "InvalidArgument"},
	} {
		got, err := (&Form{Fields: map[string]string{"key": c.pattern}, name: c.name}).key()
		if err == nil {
			if got != c.want || c.code != "" {
				t.Errorf("%.20q with %.20q: %.20q", c.pattern, c.name, got)
			}
		} else if known, _ := AsError(err); known.Code != c.code {
			t.Errorf("%.20q with %.20q: %v", c.pattern, c.name, err)
		}
	}
}
