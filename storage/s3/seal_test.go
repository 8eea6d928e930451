package s3

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"lodge/gateway"
	"lodge/storage/store"
)

func sealed(t testing.TB, s *store.Store, key store.Key, secret *secret, number int, body []byte, cut func([]byte) []byte) {
	t.Helper()
	w, err := secret.seal(store.Write{Body: bytes.NewReader(body), Size: int64(len(body))}, number)
	if err != nil {
		t.Fatal(err)
	}
	if cut != nil {
		text, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		w.Body = bytes.NewReader(cut(text))
	}
	if _, err := s.Put(t.Context(), key, w); err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// FuzzSealedRange: any range of a sealed body is that range of the plain one.
func FuzzSealedRange(f *testing.F) {
	secret, err := newSecret(sealedByHost, make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	s, plain, key := openStore(f), make([]byte, 3*packageBytes+100), store.Key{VM: gateway.NewID(), Bucket: "box", Name: "k"}
	for i := range plain {
		plain[i] = byte(i * 7 >> 3)
	}
	sealed(f, s, key, secret, wholeBody, plain, nil)
	f.Add(int64(0), int64(1))
	f.Add(int64(packageBytes-1), int64(2))
	f.Add(int64(packageBytes), int64(2*packageBytes))
	f.Add(int64(len(plain)-1), int64(1))
	f.Fuzz(func(t *testing.T, offset, length int64) {
		if offset < 0 || length < 0 || offset > int64(len(plain)) || length > int64(len(plain))-offset {
			return
		}
		body, err := s.Get(key, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = body.Close() }() // read only
		got, err := io.ReadAll(secret.plain(body, span{offset, length}))
		if err != nil || !bytes.Equal(got, plain[offset:offset+length]) {
			t.Errorf("%d bytes from %d: %d bytes, %v", length, offset, len(got), err)
		}
	})
}

// No package of a sealed body can be changed, left out, moved, or come from another object or part.
func TestAlteredSeals(t *testing.T) {
	one, err := newSecret(sealedByHost, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	other, err := newSecret(sealedByHost, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, plain, key := openStore(t), make([]byte, 2*packageBytes), store.Key{VM: gateway.NewID(), Bucket: "box", Name: "k"}
	const full = packageBytes + packageExtra
	for name, c := range map[string]struct {
		secret *secret
		number int // of the part that it is sealed as
		cut    func([]byte) []byte
	}{
		"changed":        {one, wholeBody, func(b []byte) []byte { b[100]++; return b }},
		"changed header": {one, wholeBody, func(b []byte) []byte { b[5]++; return b }},
		"moved":          {one, wholeBody, func(b []byte) []byte { return append(bytes.Clone(b[full:]), b[:full]...) }},
		"left out":       {one, wholeBody, func(b []byte) []byte { return append(bytes.Clone(b[full:]), b[full:]...) }},
		"other part":     {one, 2, nil},
		"other key":      {other, wholeBody, nil},
	} {
		sealed(t, s, key, one, c.number, plain, c.cut)
		body, err := s.Get(key, "")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, c.secret.plain(body, span{0, int64(len(plain))})); n != 0 || !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := openSecret(one.record, bytes.Repeat([]byte{1}, 32)); !errors.Is(err, errSeal) {
		t.Errorf("another outer key: %v", err)
	}
	record := bytes.Clone(one.record)
	record[0] = sealedByCustomer
	if _, err := openSecret(record, make([]byte, 32)); !errors.Is(err, errSeal) {
		t.Errorf("another kind: %v", err)
	}
}

// FuzzSealRecord: a record of any bytes opens nothing, whoever's it claims to be and whatever key the request has.
func FuzzSealRecord(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte{sealedByHost}, false)
	f.Add([]byte{sealedByCustomer}, true)
	f.Add(bytes.Repeat([]byte{sealedByHost}, 61), true)
	f.Add(bytes.Repeat([]byte{sealedByCustomer}, 61), false)
	f.Add(bytes.Repeat([]byte{3}, 61), false)
	key := make([]byte, sealKeyBytes)
	sum := md5.Sum(key)
	f.Fuzz(func(t *testing.T, record []byte, withKey bool) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/box/k", http.NoBody)
		if withKey {
			r.Header.Set(customerHeader+"Algorithm", aes256)
			r.Header.Set(customerHeader+"Key", base64.StdEncoding.EncodeToString(key))
			r.Header.Set(customerHeader+"Key-Md5", base64.StdEncoding.EncodeToString(sum[:]))
		}
		c := &call{Handler: &Handler{}, r: r}
		s, err := c.opening(record, customerHeader)
		if open := len(record) == 0 && !withKey; s != nil || (err == nil) != open {
			t.Errorf("record %x, key %v: %v", record, withKey, err)
		}
	})
}
