package store

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzKeys: keys of names that are accepted are in the order of the names, whatever is behind them, and give the names
// back; no key of one name begins like all of another's.
func FuzzKeys(f *testing.F) {
	for _, names := range [][2]string{{"x", "x/"}, {"x", "x/y"}, {"//", ".."}, {"a", "a\x01"}, {"\xff", "\xff\xff"}, {"é", "e\u0301"}, {"", "\x00"}} {
		f.Add(names[0], names[1], uint64(1))
	}
	f.Fuzz(func(t *testing.T, a, b string, n uint64) {
		if checkName(a) != nil || checkName(b) != nil {
			return
		}
		one, other := nameKey(blog, kindObject, 7, a), nameKey(blog, kindObject, 7, b)
		if got := bytes.Compare(one, other); got != strings.Compare(a, b) || nameIn(one) != a {
			t.Fatalf("%q and %q: %d, %q", a, b, got, nameIn(one))
		}
		version := versionKey(blog, 7, a, n)
		name, seq, ok := seqIn(version)
		if !ok || name != a || seq != ^n {
			t.Fatalf("%q, %d give %q, %d, %v", a, n, name, seq, ok)
		}
		if got := bytes.Compare(version, versionKey(blog, 7, b, n)); got != strings.Compare(a, b) {
			t.Fatalf("versions of %q and %q: %d", a, b, got)
		}
		if a != b && bytes.HasPrefix(version, append(nameKey(blog, kindVersion, 7, b), 0)) {
			t.Fatalf("a version of %q is one of %q", a, b)
		}
		if end := after(one); end != nil && bytes.Compare(one, end) >= 0 {
			t.Fatalf("%q is behind %q", one, end)
		}
		if got, ok := parseID(versionID(n)); !ok || got != n {
			t.Fatalf("version %d gives %d, %v", n, got, ok)
		}
	})
}

// FuzzHistory: a value of a history is read as it was written, or is ErrDamaged.
func FuzzHistory(f *testing.F) {
	key := nameKey(blog, kindObject, 7, "x")
	f.Add(historyKey(blog, 3, key), historyValue(nil))
	f.Add(historyKey(blog, 3, key), historyValue((&version{}).encode()))
	f.Add([]byte("V"), []byte{})
	f.Fuzz(func(t *testing.T, h, v []byte) {
		if len(h) < vmKeyLen+1+8 {
			return // each has the prefix of its history
		}
		key, old, err := historyEntry(blog, h, v)
		if err != nil {
			wantErr(t, err, ErrDamaged)
			return
		}
		if again := historyKey(blog, 3, key); !bytes.Equal(again[vmKeyLen+1+8:], h[vmKeyLen+1+8:]) {
			t.Fatalf("key %q of %q", key, h)
		}
		if v[0] == 1 && !bytes.Equal(historyValue(old), v) {
			t.Fatalf("value %q of %q", old, v)
		}
		if _, err := heldBy(key, old); err != nil {
			wantErr(t, err, ErrDamaged)
		}
	})
}
