package store

import (
	"bytes"
	"crypto/md5" // S3's ETag
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// attributes are the extended attributes of an object in the old layout, by name without "user.".
type attributes map[string][]byte

func readAttributes(path string) (attributes, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) {
		return attributes{}, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "list attributes", Path: path, Err: err}
	}
	a := attributes{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		short, ok := strings.CutPrefix(name, "user.")
		if !ok {
			continue
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "read attribute", Path: path, Err: err}
		}
		a[short] = bytes.Clone(value[:n])
		if a[short] == nil {
			a[short] = []byte{}
		}
	}
	return a, nil
}

// tags returns the tags of an object or a bucket.
func (a attributes) tags() (tags map[string]string) {
	if json.Unmarshal(a["X-Amz-Tagging"], &tags) != nil || len(tags) == 0 {
		return nil
	}
	return tags
}

// fill sets what the attributes have of an object.
func (a attributes) fill(v *version, path string) error {
	v.Tags = a.tags()
	v.Header = map[string]string{}
	for _, name := range []string{"content-type", "content-encoding", "content-language", "content-disposition", "cache-control", "expires"} {
		if value := a[name]; len(value) > 0 {
			v.Header[name] = string(value)
		}
	}
	if to := a["website-redirect-location"]; len(to) > 0 {
		v.Header["x-amz-website-redirect-location"] = string(to)
	}
	var own map[string]string
	if a["metadata"] != nil {
		if err := json.Unmarshal(a["metadata"], &own); err != nil {
			return fmt.Errorf("read metadata of %s: %w", path, err)
		}
	}
	for name, value := range own {
		v.Header["x-amz-meta-"+strings.ToLower(name)] = value
	}
	v.Checksum = a.checksum()
	if v.ETag = strings.Trim(string(a["etag"]), `"`); v.ETag == "" {
		return etagOf(v, path)
	}
	return nil
}

// etagOf computes the ETag of an object whose attributes are lost.
func etagOf(v *version, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	digest := md5.New() // S3's ETag
	_, err = io.Copy(digest, f)
	v.ETag = hex.EncodeToString(digest.Sum(nil))
	return errors.Join(err, f.Close())
}

// checksum returns the checksum that a client sent, if it is one of S3's.
func (a attributes) checksum() Checksum {
	var c map[string]any
	if json.Unmarshal(a["checksums"], &c) != nil {
		return Checksum{}
	}
	algorithm, _ := c["Algorithm"].(string)
	switch algorithm {
	case "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256":
	default:
		return Checksum{}
	}
	text, _ := c[algorithm].(string)
	text, _, parts := strings.Cut(text, "-") // a composite one ends in the count of parts
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(value) == 0 {
		return Checksum{}
	}
	return Checksum{Algorithm: algorithm, Value: value, Composite: parts || c["Type"] == "COMPOSITE"}
}

// taggingDocument is S3's XML of a bucket's tags.
func taggingDocument(tags map[string]string) []byte {
	type tag struct{ Key, Value string }
	document := struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ Tagging"`
		Tags    []tag    `xml:"TagSet>Tag"`
	}{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		document.Tags = append(document.Tags, tag{key, tags[key]})
	}
	b, err := xml.Marshal(document)
	if err != nil {
		return nil // strings can always be written
	}
	return b
}
