package s3

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	"lodge/storage/store"
)

func TestAlgorithms(t *testing.T) {
	for name, want := range map[string]string{ // of "123456789", as published for each
		"CRC32": "y/Q5Jg==", "CRC32C": "4waSgw==", "CRC64NVME": "rosUhgp5mIg=",
		"SHA512": "2eZ2LdHI6vbWGzxhkvxAjU1tXxF20MKRabwk5xw/J0rSf81YEbMT1oH35V7ALXPUmclUVba1u1A6z1dPuo/+hQ==",
		"SHA1":   "98O8HYCOBHMq32eZZczDTKeuNEE=", "SHA256": "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
	} {
		a, err := algorithmOf(name)
		if err != nil {
			t.Fatal(err)
		}
		h := a.make()
		h.Write([]byte("123456789"))
		if sum := h.Sum(nil); len(sum) != a.size || base64.StdEncoding.EncodeToString(sum) != want {
			t.Errorf("%s: %s, not %s", name, base64.StdEncoding.EncodeToString(sum), want)
		}
	}
	if _, err := algorithmOf("MD4"); err == nil {
		t.Error("MD4 is taken for one")
	}
	for name, want := range map[string]string{ // of nothing
		"MD5": "d41d8cd98f00b204e9800998ecf8427e", "XXHASH64": "ef46db3751d8e999", "XXHASH3": "2d06800538d394c2", "XXHASH128": "99aa06d3014798d86001c324468d497f",
	} {
		a, err := algorithmOf(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := a.make().Sum(nil); len(sum) != a.size || hex.EncodeToString(sum) != want {
			t.Errorf("%s: %x, not %s", name, sum, want)
		}
	}
}

// The checksum of a whole is the one joined from its parts', however it is cut.
func TestJoinedChecksums(t *testing.T) {
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for _, a := range algorithms() {
		if a.poly == 0 {
			continue
		}
		for range 20 {
			var parts []store.Part
			for rest := data; len(rest) > 0; {
				n := min(len(rest), rand.IntN(40_000))
				h := a.make()
				h.Write(rest[:n])
				parts = append(parts, store.Part{Number: len(parts) + 1, Size: int64(n), Checksum: store.Checksum{Algorithm: a.name, Value: h.Sum(nil)}})
				rest = rest[n:]
			}
			got, err := joinChecksums(store.UploadOptions{Algorithm: a.name, FullObject: true}, parts)
			h := a.make()
			h.Write(data)
			if want := h.Sum(nil); err != nil || !bytes.Equal(got.Value, want) || got.Composite {
				t.Fatalf("%s of %d parts: %x instead of %x, %v", a.name, len(parts), got.Value, want, err)
			}
		}
	}
}

func TestUploadChecksums(t *testing.T) {
	for name, tt := range map[string]struct {
		algorithm, kind string
		whole           bool
		bad             bool
	}{
		"none":                   {},
		"a type alone":           {kind: "COMPOSITE", bad: true},
		"CRC32":                  {algorithm: "CRC32"},
		"CRC32 of the whole":     {algorithm: "crc32", kind: "FULL_OBJECT", whole: true},
		"CRC64NVME":              {algorithm: "CRC64NVME", whole: true},
		"CRC64NVME of the parts": {algorithm: "CRC64NVME", kind: "COMPOSITE", bad: true},
		"SHA256 of the whole":    {algorithm: "SHA256", kind: "FULL_OBJECT", bad: true},
		"SHA256":                 {algorithm: "SHA256"},
		"another type":           {algorithm: "SHA256", kind: "OTHER", bad: true},
		"another algorithm":      {algorithm: "MD4", bad: true},
		"an XXHASH of the whole": {algorithm: "XXHASH64", kind: "FULL_OBJECT", bad: true},
		"of the parts":           {algorithm: "XXHASH64", kind: "COMPOSITE"},
	} {
		h := http.Header{}
		if tt.algorithm != "" {
			h.Set("X-Amz-Checksum-Algorithm", tt.algorithm)
		}
		if tt.kind != "" {
			h.Set("X-Amz-Checksum-Type", tt.kind)
		}
		if _, whole, err := uploadChecksum(h); (err != nil) != tt.bad || whole != tt.whole {
			t.Errorf("%s: %v, %v", name, whole, err)
		}
	}
}

// FuzzPayload: a body that is read to io.EOF has exactly the bytes, and the checksum, that its headers
// announce.
func FuzzPayload(f *testing.F) {
	f.Add([]byte("123456789"), "y/Q5Jg==", int64(9), "")
	f.Add([]byte("9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n"), "", int64(9), "x-amz-checksum-crc32")
	f.Add([]byte(""), "AAAAAA==", int64(0), "")
	f.Fuzz(func(t *testing.T, body []byte, sum string, size int64, trailer string) {
		h := http.Header{}
		r := &http.Request{Header: h, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
		if sum != "" {
			h.Set("X-Amz-Checksum-Crc32", sum)
		}
		if trailer != "" {
			h.Set("X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
			h.Set("X-Amz-Trailer", trailer)
			h["X-Amz-Decoded-Content-Length"] = []string{itoa(size)}
		}
		p, err := (&call{r: r}).payload(1<<20, algorithm{})
		if err != nil {
			if _, known := errors.AsType[*Error](err); !known {
				t.Fatalf("not of S3: %v", err)
			}
			return
		}
		got, err := io.ReadAll(p)
		if err != nil {
			if _, known := errors.AsType[*Error](err); !known {
				t.Fatalf("not of S3: %v", err)
			}
			return
		}
		if int64(len(got)) != p.size {
			t.Fatalf("%d bytes instead of %d", len(got), p.size)
		}
		if p.kind.name != "" {
			again := p.kind.make()
			again.Write(got)
			if p.want == nil || !bytes.Equal(p.want, again.Sum(nil)) {
				t.Fatalf("an unproven body: %x", p.want)
			}
		}
	})
}
