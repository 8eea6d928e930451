package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

func checked(t testing.TB, s *Store) (found []Damage) {
	t.Helper()
	if err := s.Check(t.Context(), func(d Damage) { found = append(found, d) }); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestDamage damages each kind of what is stored. Reading is ErrDamaged before the first bad byte, Check tells
// the object, and the others are read as before.
func TestDamage(t *testing.T) {
	large := random(1, 3*chunkBytes+7)
	cases := map[string]struct {
		body  []byte
		harm  func(s *Store, v *version) error
		clean int // bytes that are still read
	}{
		"cut file": {large, func(s *Store, v *version) error {
			return os.Truncate(s.blobs.finalPath(blog, v.content.id), 5)
		}, 0},
		"flipped byte": {large, func(s *Store, v *version) error {
			return flip(s.blobs.finalPath(blog, v.content.id), 2*chunkBytes+9)
		}, 2 * chunkBytes},
		"last byte": {large, func(s *Store, v *version) error {
			return flip(s.blobs.finalPath(blog, v.content.id), int64(len(large))-1)
		}, 3 * chunkBytes},
		"no file": {large, func(s *Store, v *version) error {
			return os.Remove(s.blobs.finalPath(blog, v.content.id))
		}, 0},
		"symlink": {large, func(s *Store, v *version) error {
			file := s.blobs.finalPath(blog, v.content.id)
			return errors.Join(os.Rename(file, s.path("elsewhere")), os.Symlink(s.path("elsewhere"), file))
		}, 0},
		"directory": {large, func(s *Store, v *version) error {
			file := s.blobs.finalPath(blog, v.content.id)
			return errors.Join(os.Remove(file), os.Mkdir(file, 0o700))
		}, 0},
		"no record of the file": {large, func(s *Store, v *version) error {
			return s.index.Delete(numKey(blog, kindFile, v.content.id), pebble.Sync)
		}, 0},
		"small body": {[]byte("hello"), func(s *Store, v *version) error {
			return s.index.Set(numKey(blog, kindSmall, v.content.id), []byte("hallo"), pebble.Sync)
		}, 0},
		"no small body": {[]byte("hello"), func(s *Store, v *version) error {
			return s.index.Delete(numKey(blog, kindSmall, v.content.id), pebble.Sync)
		}, 0},
		"record": {[]byte("hello"), func(s *Store, _ *version) error {
			b, err := bucketOf(s.index, blog, "box")
			if err != nil {
				return err
			}
			return s.index.Set(nameKey(blog, kindObject, b.number, "x"), []byte("garbage"), pebble.Sync)
		}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			key, other := Key{blog, "box", "x"}, Key{blog, "box", "y"}
			put(t, s, key, c.body)
			put(t, s, other, c.body)
			if found := checked(t, s); len(found) > 0 {
				t.Fatalf("before: %v", found)
			}
			v, err := s.find(key, "")
			must(t, err)
			must(t, c.harm(s, v))
			got, err := read(s, key, "")
			wantErr(t, err, ErrDamaged)
			if !bytes.Equal(got, c.body[:c.clean]) {
				t.Errorf("read %d bytes, want the first %d", len(got), c.clean)
			}
			wantBody(t, s, other, "", c.body)
			told := false
			for _, d := range checked(t, s) {
				told = told || d.VM == blog && d.Bucket == "box" && (d.Name == "x" || d.Name == "")
				wantErr(t, d.Err, ErrDamaged)
			}
			if !told {
				t.Error("Check has not told it")
			}
			if _, err := s.Head(key, ""); err == nil { // its record is there: it can be replaced
				put(t, s, key, []byte("new"))
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes one bit of a file.
func flip(file string, at int64) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	b[at] ^= 4
	return os.WriteFile(file, b, 0o600)
}

// TestCheckTellsStrayFiles has a file without a record, and a count that is wrong.
func TestCheckTellsStrayFiles(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, Key{blog, "box", "x"}, random(1, maxSmall+1))
	stray := s.blobs.finalPath(blog, 0x77)
	must(t, os.MkdirAll(filepath.Dir(stray), 0o700))
	must(t, os.WriteFile(stray, nil, 0o600))
	must(t, s.index.Merge(textKey(blog, kindUsage, "box"), encodeSum(1, 1, 0), pebble.Sync))
	found := checked(t, s)
	if len(found) != 2 || !strings.Contains(found[0].Err.Error(), "usage") || !strings.HasSuffix(found[1].Blob, "77") {
		t.Errorf("found %v", found)
	}
}

// FuzzRecords gives any bytes to each decoder: none panics, and what one accepts is encoded as it was.
func FuzzRecords(f *testing.F) {
	v := &version{seq: 7, content: content{kind: kindSmall, id: 3, crc: 5}}
	v.Size, v.Header, v.Tags = 9, map[string]string{"a": "b"}, map[string]string{"c": ""}
	f.Add(v.encode())
	f.Add((&Bucket{number: 1, Name: "box", Config: map[string][]byte{"cors": []byte("x")}}).encode())
	f.Add((&file{size: 1, crcs: []uint64{2}}).encode())
	f.Add(encodeList([]part{{Part: Part{Number: 1, Size: 2, ETag: "e"}}, {Part: Part{Number: 2}}}))
	f.Add((&Upload{}).encode())
	f.Add([]byte{recordFormat, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, again func() []byte, decode func([]byte) error, err error) {
			if err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Errorf("%s: %v", what, err)
				}
				return
			}
			if err := decode(again()); err != nil { // not byte for byte: a varint can be longer than it must
				t.Errorf("%s: encoded and decoded again: %v", what, err)
			}
		}
		v, err := decodeVersion(Key{}, b)
		same("version", func() []byte { return v.encode() }, func(b []byte) error { _, err := decodeVersion(Key{}, b); return err }, err)
		bucket, err := decodeBucket(blog, "box", b)
		same("bucket", func() []byte { return bucket.encode() }, func(b []byte) error { _, err := decodeBucket(blog, "box", b); return err }, err)
		file, err := decodeFile(b)
		same("file", func() []byte { return file.encode() }, func(b []byte) error { _, err := decodeFile(b); return err }, err)
		if size, failed := sizeOfFile(b); err == nil && (failed != nil || size != file.size) {
			t.Errorf("a file of %d bytes has %d, %v", file.size, size, failed)
		}
		list, err := decodeList(b)
		same("list", func() []byte { return encodeList(list) }, func(b []byte) error { _, err := decodeList(b); return err }, err)
		_, _ = decodeBucketHead(blog, "box", b) // it must not panic, and nor must the next
		_, _ = decodeVersionWith(Key{}, b, func(d *decoder) Meta { return d.listed(true) })
		u, err := decodeUpload(Key{}, 1, b)
		same("upload", func() []byte { return u.encode() }, func(b []byte) error { _, err := decodeUpload(Key{}, 1, b); return err }, err)
		p, err := decodePart(b)
		same("part", func() []byte { return p.encode() }, func(b []byte) error { _, err := decodePart(b); return err }, err)
		var m sum
		_ = m.MergeNewer(b) // it must not panic
	})
}
