package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"lodge/storage/store"
)

// maxCopyBytes limits the source of one copy.
const maxCopyBytes = 5 << 30

// source is the source of a copy: an object, and which version; "" for the latest.
type source struct {
	key     store.Key
	version string
	reader  *judge // for who copies; nil before copySource
}

// parseSource parses an x-amz-copy-source: bucket/key, with or without a slash before, percent-encoded
// once, and a versionId behind. The bucket's name is as the caller has it.
func parseSource(header string) (source, error) {
	path, version, versioned := strings.Cut(header, "?versionId=")
	if versioned {
		if err := checkVersion(version); err != nil {
			return source{}, err
		}
	}
	plain, err := url.PathUnescape(strings.TrimPrefix(path, "/"))
	if err != nil {
		return source{}, invalidArgument("Invalid copy source encoding")
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(plain, "/"), "/")
	if key == "" {
		return source{}, invalidArgument("Invalid copy source object key")
	}
	return source{key: store.Key{Bucket: bucket, Name: key}, version: version}, checkKey(key)
}

// findSource finds the bucket of the request's copy. The request ends with the right to read it. Call leave after it.
func (c *call) findSource() (leave func(), err error) {
	from, err := parseSource(c.r.Header.Get("X-Amz-Copy-Source"))
	if err != nil {
		return nil, err
	}
	bucket := from.key.Bucket
	if c.Source != nil {
		if c.from, err = c.Source(c.r.Context(), bucket); err != nil {
			return nil, err
		}
	} else {
		c.from = ownSource(c.r.Context(), c.VM, bucket)
	}
	expected := c.r.Header.Get("X-Amz-Source-Expected-Bucket-Owner")
	switch {
	case checkBucket(c.from.Bucket) != nil:
		err = errSourceBucket()
	case expected != "" && expected != c.from.VM.ID.String():
		err = denied("The owner of the source's bucket is not the one expected.")
	}
	if err != nil {
		c.from.Leave()
		return nil, err
	}
	c.r = c.r.WithContext(c.from.Ctx)
	return c.from.Leave, nil
}

// copySource finds the source of the request's copy, and checks its conditions.
func (c *call) copySource() (source, store.Object, error) {
	from, err := parseSource(c.r.Header.Get("X-Amz-Copy-Source"))
	if err != nil {
		return from, store.Object{}, err
	}
	from.key.VM, from.key.Bucket = c.from.VM.ID, c.from.Bucket
	reader := *c // who reads the source, which may be by another right than who writes
	reader.VM, reader.Bucket, reader.Granted = c.from.VM, c.from.Bucket, c.from.Granted
	if reader.query = (url.Values{}); from.version != "" { // conditions of a policy are about the source
		reader.query.Set("versionId", from.version)
	}
	if from.reader, err = reader.judge(from.key.Bucket); err != nil {
		return from, store.Object{}, err
	}
	if err := from.reader.allows(versionAction("GetObject", from.version), from.key.Name); err != nil {
		return from, store.Object{}, err
	}
	o, err := c.Store.Head(from.key, from.version)
	if errors.Is(err, store.ErrDeleted) && from.version != "" {
		return from, o, invalidRequest("The source of a copy request may not specifically refer to a delete marker by version id.")
	}
	if err != nil {
		return from, o, err
	}
	if readConditions(c.r.Header, "X-Amz-Copy-Source-").check(o) != http.StatusOK {
		return from, o, store.ErrPrecondition
	}
	return from, o, nil
}

type copyXML struct {
	XMLName      xml.Name
	LastModified string
	ETag         string
	ChecksumType string `xml:",omitempty"`
	checksumsXML
}

// copyObject answers CopyObject.
func copyObject(c *call) error {
	from, o, err := c.copySource()
	if err != nil {
		return err
	}
	if o.Size > maxCopyBytes {
		return invalidRequest("The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(maxCopyBytes))
	}
	condition, err := writeCondition(c.r.Header)
	if err != nil {
		return err
	}
	meta, err := c.copyMeta(from, o)
	if err != nil {
		return err
	}
	copied, err := c.copyBody(from, o, store.Write{Meta: meta, If: condition})
	if err != nil {
		return err
	}
	c.setSource(o)
	c.setVersion(copied)
	c.setSealed(copied.Sealed)
	out := copyXML{
		XMLName: xml.Name{Space: xmlns, Local: "CopyObjectResult"}, LastModified: timestamp(copied.Modified), ETag: quote(copied.ETag),
		checksumsXML: checksumsOf(copied.Checksum, copied.Parts),
	}
	if copied.Checksum.Algorithm != "" {
		out.ChecksumType = checksumType(copied.Checksum)
	}
	return c.reply(out)
}

func (c *call) setSource(o store.Object) {
	if o.Version != store.NullVersion {
		c.set("x-amz-copy-source-version-id", o.Version)
	}
}

// copyBody copies the body of o, sealed by the request's headers, else by the default of the bucket, else
// by the host if o is. No bytes of a large one are copied within a VM if the copy has the same checksum and is
// not sealed, or by the host like its source.
func (c *call) copyBody(from source, o store.Object, w store.Write) (store.Object, error) {
	kind, err := algorithmOf(c.r.Header.Get("X-Amz-Checksum-Algorithm"))
	if err != nil {
		return store.Object{}, err
	}
	key, err := c.opening(o.Sealed, sourceHeader)
	if err != nil {
		return store.Object{}, err
	}
	to, err := c.sealing()
	if err == nil && to == nil && key != nil && key.kind == sealedByHost {
		to, err = c.hostSecret()
	}
	if err != nil {
		return store.Object{}, err
	}
	hosted := key != nil && to != nil && key.kind == sealedByHost && to.kind == sealedByHost
	sameSum := kind.name == "" || kind.name == o.Checksum.Algorithm && !o.Checksum.Composite
	if sameSum && from.key.VM == c.VM.ID && (hosted || key == nil && to == nil) {
		return c.shareBody(from, o, w)
	}
	if kind.name == "" {
		if kind, err = algorithmOf(o.Checksum.Algorithm); err != nil {
			return store.Object{}, err
		}
	}
	body, err := c.sourceBody(from, o)
	if err != nil {
		return store.Object{}, err
	}
	defer func() { _ = body.Close() }() // read only
	w.Body, w.Size, w.Meta.Sealed = key.plain(body, span{0, o.Size}), o.Size, to.recordOf()
	if w, err = to.seal(kind.sum(w), wholeBody); err != nil {
		return store.Object{}, err
	}
	w.Event = store.CreatedByCopy
	return c.Store.Put(c.r.Context(), c.storeKey(), w)
}

// shareBody copies o with the record of its sealing, if it is still the one that was found.
func (c *call) shareBody(from source, o store.Object, w store.Write) (store.Object, error) {
	w.Meta.Sealed = o.Sealed
	return c.Store.Copy(c.r.Context(), from.key, o.Version, c.storeKey(), store.CopyOptions{If: w.If, Meta: func(now store.Object) (store.Meta, error) {
		return w.Meta, sameBody(now, o)
	}})
}

// sameBody compares the source of a copy with the one that was found. An ETag alone is not enough: the
// same plain bytes may be sealed with another key by now.
func sameBody(now, found store.Object) error {
	if now.ETag != found.ETag || !bytes.Equal(now.Sealed, found.Sealed) {
		return store.ErrPrecondition
	}
	return nil
}

// sourceBody opens the source of a copy, if it is still the one that was found.
func (c *call) sourceBody(from source, o store.Object) (*store.Body, error) {
	body, err := c.Store.Get(from.key, o.Version)
	if err != nil {
		return nil, err
	}
	if err := sameBody(body.Object, o); err != nil {
		_ = body.Close() // read only
		return nil, err
	}
	return body, nil
}

// sum makes a write compute its checksum; without an algorithm it has none.
func (a algorithm) sum(w store.Write) store.Write {
	if a.name == "" {
		return w
	}
	sum := a.make()
	w.Body = io.TeeReader(w.Body, sum)
	w.Checksum = func() store.Checksum { return store.Checksum{Algorithm: a.name, Value: sum.Sum(nil)} }
	return w
}

// copyMeta is what the copy has: its directives decide whether headers and tags are the source's or
// the request's.
func (c *call) copyMeta(from source, o store.Object) (store.Meta, error) {
	meta, err := c.meta()
	if err != nil {
		return meta, err
	}
	replace, err := c.directive("X-Amz-Metadata-Directive")
	if err != nil {
		return meta, err
	}
	replaceTags, err := c.directive("X-Amz-Tagging-Directive")
	if err != nil {
		return meta, err
	}
	newClass := c.r.Header.Get("X-Amz-Storage-Class") != "" && class(meta) != class(o.Meta)
	changes := replace || newClass || from.version != "" || meta.Header["x-amz-website-redirect-location"] != "" ||
		c.r.Header.Get(sseHeader) != "" || c.r.Header.Get(customerHeader+"Algorithm") != ""
	if from.key == c.storeKey() && !changes {
		return meta, invalidRequest("This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	if !replace {
		header := maps.Clone(o.Header)
		if header == nil {
			header = map[string]string{}
		}
		for _, name := range []string{"x-amz-storage-class", "x-amz-website-redirect-location"} {
			if delete(header, name); meta.Header[name] != "" {
				header[name] = meta.Header[name]
			}
		}
		meta.Header = header
	}
	if !replaceTags && len(o.Tags) > 0 {
		if err := from.reader.allows(versionAction("GetObjectTagging", from.version), from.key.Name); err != nil {
			return meta, err
		}
		meta.Tags = maps.Clone(o.Tags)
	}
	return meta, nil
}

// directive reports whether a directive of a copy is REPLACE.
func (c *call) directive(name string) (bool, error) {
	switch v := c.r.Header.Get(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, invalidArgument("Unknown %s: %.40q. It is COPY or REPLACE.", strings.ToLower(name), v)
	}
}

// copyPart answers UploadPartCopy: a part is read and written, since its ETag is its own MD5.
func copyPart(c *call) error {
	number, err := c.partNumber()
	if err != nil {
		return err
	}
	from, o, err := c.copySource()
	if err != nil {
		return err
	}
	up, err := c.upload()
	if err != nil {
		return err
	}
	part, err := parseCopyRange(c.r.Header.Get("X-Amz-Copy-Source-Range"), o.Size)
	if err != nil {
		return err
	}
	if part.length > maxCopyBytes {
		return invalidRequest("The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(maxCopyBytes))
	}
	key, err := c.opening(o.Sealed, sourceHeader)
	if err != nil {
		return err
	}
	kind, err := algorithmOf(up.Algorithm)
	if err != nil {
		return err
	}
	body, err := c.sourceBody(from, o)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read only
	copied, err := c.putSealedPart(up, number, kind.sum(store.Write{Body: key.plain(body, part), Size: part.length}))
	if err != nil {
		return err
	}
	c.setSource(o)
	return c.reply(copyXML{
		XMLName: xml.Name{Space: xmlns, Local: "CopyPartResult"}, LastModified: timestamp(copied.Modified), ETag: quote(copied.ETag),
		checksumsXML: checksumsOf(copied.Checksum, 0),
	})
}
