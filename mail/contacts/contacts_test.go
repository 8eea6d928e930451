package contacts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func open(tb testing.TB, dir string) *Book {
	tb.Helper()
	b, err := Open(dir)
	gatewaytest.Must(tb, err)
	return b
}

func hasWritten(tb testing.TB, b *Book, id gateway.ID, address string, now time.Time) bool {
	tb.Helper()
	ok, err := b.HasWritten(id, address, now)
	gatewaytest.Must(tb, err)
	return ok
}

// What was recorded is found in any spelling, to the VM alone, after a restart too, and for Life.
func TestContactsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "contacts")
	blog, shop := gateway.NewID(), gateway.NewID()
	b := open(t, dir)
	gatewaytest.Must(t, b.Wrote(blog, "Ada@Bücher.example", noon))
	gatewaytest.Must(t, b.Wrote(blog, "eve", noon)) // no address
	for range 2 {
		for _, row := range []struct {
			id      gateway.ID
			address string
			now     time.Time
			want    bool
		}{
			{blog, "ada@xn--bcher-kva.example", noon, true},
			{blog, "ADA@bücher.EXAMPLE", noon.Add(Life), true},
			{blog, "ada@xn--bcher-kva.example", noon.Add(Life + day), false},
			{blog, "bob@xn--bcher-kva.example", noon, false},
			{blog, "eve", noon, false},
			{shop, "ada@xn--bcher-kva.example", noon, false},
		} {
			if got := hasWritten(t, b, row.id, row.address, row.now); got != row.want {
				t.Errorf("%s at %v: %v, want %v", row.address, row.now, got, row.want)
			}
		}
		b = open(t, dir)
	}
}

// A file that a crash has cut or spoiled loses what was hit, and can be written again.
func TestSpoiledFile(t *testing.T) {
	dir := t.TempDir()
	id := gateway.NewID()
	text := "2026-11-28 ada@example.com\n\x00\x00\x00\x00\n2026-11-28 bob@example.com\nnever x@y.z\n2026-11-29 eve@exa"
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, id.String()), []byte(text), 0o600))
	b := open(t, dir)
	gatewaytest.Must(t, b.Wrote(id, "new@example.com", noon))
	for range 2 {
		for address, want := range map[string]bool{
			"ada@example.com": true, "bob@example.com": true, "new@example.com": true, "x@y.z": false, "eve@exa": false,
		} {
			if got := hasWritten(t, b, id, address, noon); got != want {
				t.Errorf("%s: %v, want %v", address, got, want)
			}
		}
		b = open(t, dir)
	}
}

// Who has a domain cannot push out the others with it.
func TestStrangerDisplacesHisOwn(t *testing.T) {
	dir := t.TempDir()
	id := gateway.NewID()
	var lines strings.Builder
	lines.WriteString("2026-11-29 ada@example.com\n")
	for i := range 2*maxContacts - 10 {
		fmt.Fprintf(&lines, "2026-11-30 x%d@evil.example\n", i%(maxContacts-1))
	}
	file := filepath.Join(dir, id.String())
	gatewaytest.Must(t, os.WriteFile(file, []byte(lines.String()), 0o600))
	b := open(t, dir)
	for i := range 50 {
		gatewaytest.Must(t, b.Wrote(id, fmt.Sprintf("y%d@evil.example", i), noon.Add(day)))
	}
	text, err := os.ReadFile(file)
	gatewaytest.Must(t, err)
	if n := strings.Count(string(text), "\n"); n > maxContacts+50 {
		t.Errorf("the file has %d lines", n)
	}
	b = open(t, dir)
	if !hasWritten(t, b, id, "ada@example.com", noon.Add(day)) {
		t.Error("ada is no longer known")
	}
	r, err := b.record(id)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, r.load())
	if trim(r.last, number(noon)); len(r.last) != maxContacts {
		t.Errorf("%d contacts", len(r.last))
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	id := gateway.NewID()
	b := open(t, dir)
	gatewaytest.Must(t, b.Wrote(id, "ada@example.com", noon))
	held, err := b.record(id)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, b.Remove(id))
	gatewaytest.Must(t, b.Remove(id))
	for _, err := range []error{b.Wrote(id, "ada@example.com", noon), held.add("ada@example.com", number(noon))} {
		if gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("after the removal: %v", err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Whatever a file has, reading it gives whole addresses, and what is written from them reads the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-11-28 ada@example.com\n2026-11-29 ada@example.com\n2026"))
	f.Add([]byte("\n\n \n2026-11-28 @\n0000-01-01 a@b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		last, _, _ := parse(text)
		again, lines, broken := parse(format(last))
		if broken || lines != len(last) || len(again) != len(last) {
			t.Errorf("%q: %v, then %v", text, last, again)
		}
	})
}
