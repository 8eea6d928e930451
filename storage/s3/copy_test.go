package s3

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/storage/store"
)

// A source that is sealed anew, or for the first time, between the two reads of a copy has the same ETag.
// The copy is refused: its record would not open its body.
func TestCopyOfReplacedSource(t *testing.T) {
	h := &Handler{Store: openStore(t)}
	vm := gateway.Identity{ID: gateway.NewID()}
	plain := bytes.Repeat([]byte("x"), 100_000)
	from := source{key: store.Key{VM: vm.ID, Bucket: "box", Name: "k"}}
	put := func(key *secret) {
		t.Helper()
		w, err := key.seal(store.Write{Body: bytes.NewReader(plain), Size: int64(len(plain)), Meta: store.Meta{Sealed: key.recordOf()}}, wholeBody)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Store.Put(t.Context(), from.key, w); err != nil {
			t.Fatal(err)
		}
	}
	secretOf := func() *secret {
		s, err := newSecret(sealedByHost, h.SealKey[:])
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, keys := range map[string][2]*secret{
		"sealed anew": {secretOf(), secretOf()}, "sealed": {nil, secretOf()}, "opened": {secretOf(), nil},
	} {
		for _, sum := range []string{"", "SHA256"} { // by sharing, and by bytes
			put(keys[0])
			found, err := h.Store.Head(from.key, "")
			if err != nil {
				t.Fatal(err)
			}
			put(keys[1])
			r := httptest.NewRequestWithContext(t.Context(), "PUT", "/box/copy", strings.NewReader(""))
			r.Header.Set("X-Amz-Checksum-Algorithm", sum)
			c := &call{Handler: h, Caller: Caller{VM: vm}, Target: Target{Bucket: "box", Key: "copy"}, r: r}
			if _, err := c.copyBody(from, found, store.Write{}); !errors.Is(err, store.ErrPrecondition) {
				t.Errorf("%s, checksum %q: %v", name, sum, err)
			}
		}
	}
}
