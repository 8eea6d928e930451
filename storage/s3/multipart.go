package s3

import (
	"cmp"
	"encoding/xml"
	"net/http"
	"net/url"

	"lodge/storage/sigv4"
	"lodge/storage/store"
)

type initiateXML struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
	Bucket   string
	Key      string
	UploadID string `xml:"UploadId"`
}

// createUpload answers CreateMultipartUpload.
func createUpload(c *call) error {
	meta, err := c.meta()
	if err != nil {
		return err
	}
	key, err := c.sealing()
	if err != nil {
		return err
	}
	meta.Sealed = key.recordOf()
	options := store.UploadOptions{Meta: meta}
	if options.Algorithm, options.FullObject, err = uploadChecksum(c.r.Header); err != nil {
		return err
	}
	up, err := c.Store.NewUpload(c.storeKey(), options)
	if err != nil {
		return err
	}
	if options.Algorithm != "" {
		c.set("x-amz-checksum-algorithm", options.Algorithm)
		c.set("x-amz-checksum-type", checksumType(store.Checksum{Composite: !options.FullObject}))
	}
	c.setSealed(meta.Sealed)
	return c.reply(initiateXML{Bucket: c.Bucket, Key: c.Key, UploadID: up.ID})
}

// partNumber is the number of the part that the request is about.
func (c *call) partNumber() (int, error) {
	n, ok := digits(c.query.Get("partNumber"))
	if !ok || n < 1 || n > maxParts {
		return 0, store.ErrPartNumber
	}
	return int(n), nil
}

// upload is the upload that the request is about.
func (c *call) upload() (store.Upload, error) {
	return c.Store.Upload(c.storeKey(), c.query.Get("uploadId"))
}

// uploadPart answers UploadPart.
func uploadPart(c *call) error {
	number, err := c.partNumber()
	if err != nil {
		return err
	}
	up, err := c.upload()
	if err != nil {
		return err
	}
	kind, err := algorithmOf(up.Algorithm)
	if err != nil {
		return err
	}
	body, err := c.payload(maxPutBytes, kind)
	if err != nil {
		return err
	}
	part, err := c.putSealedPart(up, number, store.Write{Body: body, Size: body.size, MD5: body.md5, Checksum: body.checksum})
	if err != nil {
		return err
	}
	c.set("Etag", quote(part.ETag))
	c.setChecksum(part.Checksum, 0)
	delete(c.w.Header(), "x-amz-checksum-type") // a part has none; Del would look for another spelling
	return nil
}

// putSealedPart stores a part, sealed as the upload is, and sets the headers about that. A wrong or a
// missing key is refused before the body is read.
func (c *call) putSealedPart(up store.Upload, number int, w store.Write) (store.Part, error) {
	key, err := c.opening(up.Meta.Sealed, customerHeader)
	if err != nil {
		return store.Part{}, err
	}
	if w, err = key.seal(w, number); err != nil {
		return store.Part{}, err
	}
	part, err := c.Store.PutPart(c.r.Context(), c.storeKey(), up.ID, number, w)
	if err == nil {
		c.setSealed(up.Meta.Sealed)
	}
	return part, err
}

type completeXML struct {
	Parts []struct {
		PartNumber int
		ETag       string
		checksumsXML
	} `xml:"Part"`
}

type completedXML struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUploadResult"`
	Location string
	Bucket   string
	Key      string
	ETag     string
	checksumsXML
	ChecksumType string `xml:",omitempty"`
}

// completeUpload answers CompleteMultipartUpload.
func completeUpload(c *call) error {
	var list completeXML
	if err := c.decodePlain(&list, maxList, maxParts); err != nil {
		return err
	}
	if len(list.Parts) == 0 {
		return errXML("The XML lists no parts.")
	}
	condition, err := writeCondition(c.r.Header)
	if err != nil {
		return err
	}
	parts, err := list.parts()
	if err != nil {
		return err
	}
	completion := store.Completion{If: condition}
	if text := c.r.Header.Get("X-Amz-Mp-Object-Size"); text != "" {
		size, ok := digits(text)
		if !ok {
			return invalidRequest("Value for x-amz-mp-object-size header is invalid.")
		}
		completion.Size = &size
	}
	if completion.Checksum, err = c.completedChecksum(); err != nil {
		return err
	}
	hasKey, err := c.completesWithKey()
	if err != nil {
		return err
	}
	o, err := c.Store.Complete(c.r.Context(), c.storeKey(), c.query.Get("uploadId"), parts, completion)
	if err != nil {
		return err
	}
	c.setVersion(o)
	if hasKey || len(o.Sealed) > 0 && o.Sealed[0] == sealedByHost {
		c.setSealed(o.Sealed)
	}
	out := completedXML{Location: c.location(), Bucket: c.Bucket, Key: c.Key, ETag: quote(o.ETag), checksumsXML: checksumsOf(o.Checksum, o.Parts)}
	if o.Checksum.Algorithm != "" {
		out.ChecksumType = checksumType(o.Checksum)
	}
	return c.reply(out)
}

// parts are the listed parts, as the store compares them.
func (list *completeXML) parts() (parts []store.CompletedPart, _ error) {
	for _, p := range list.Parts {
		part := store.CompletedPart{Number: p.PartNumber, ETag: unquote(p.ETag)}
		for _, a := range algorithms() {
			text := *p.field(a.name)
			if text == "" {
				continue
			}
			sum, err := a.parse(text)
			if err != nil {
				return nil, err
			}
			part.Checksum = sum
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// completedChecksum computes the object's checksum, and compares it with the one in the headers.
func (c *call) completedChecksum() (func([]store.Part) (store.Checksum, error), error) {
	kind := c.r.Header.Get("X-Amz-Checksum-Type")
	announced, text, err := rawChecksum(c.r.Header)
	if err != nil {
		return nil, err
	}
	return func(parts []store.Part) (store.Checksum, error) {
		up, err := c.upload()
		if err != nil {
			return store.Checksum{}, err
		}
		sum, err := joinChecksums(up.UploadOptions, parts)
		switch {
		case err != nil:
		case kind != "" && kind != checksumType(sum):
			err = invalidRequest("The upload was created using the %s checksum mode. The complete request must use the same checksum mode.", checksumType(sum))
		case text != "" && announced.name != sum.Algorithm:
			err = invalidRequest("The request has a %s checksum, which differs from that of the upload (%s).", announced.name, cmp.Or(sum.Algorithm, "none"))
		case text != "" && text != checksumText(sum, 0) && text != checksumText(sum, len(parts)):
			err = badRequest("BadDigest", "The %s you specified did not match the calculated checksum.", announced.name)
		}
		return sum, err
	}, nil
}

// location is the address of the object.
func (c *call) location() string {
	u := url.URL{Scheme: "http", Host: c.r.Host, Path: "/" + c.Bucket + "/" + c.Key, RawPath: "/" + c.Bucket + "/" + sigv4.Escape(c.Key, true)}
	if c.r.TLS != nil {
		u.Scheme = "https"
	}
	if c.r.URL.Path == "/"+c.Key { // the bucket is in the host's name
		u.Path, u.RawPath = "/"+c.Key, "/"+sigv4.Escape(c.Key, true)
	}
	return u.String()
}

// abortUpload answers AbortMultipartUpload.
func abortUpload(c *call) error {
	if err := c.Store.Abort(c.storeKey(), c.query.Get("uploadId")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

type partXML struct {
	PartNumber   int
	LastModified string `xml:",omitempty"`
	ETag         string `xml:",omitempty"`
	Size         int64
	checksumsXML
}

type partsXML struct {
	XMLName              xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListPartsResult"`
	Bucket               string
	Key                  string
	UploadID             string `xml:"UploadId"`
	Initiator            *owner
	Owner                *owner
	StorageClass         string
	PartNumberMarker     int
	NextPartNumberMarker int
	MaxParts             int
	IsTruncated          bool
	ChecksumAlgorithm    string    `xml:",omitempty"`
	ChecksumType         string    `xml:",omitempty"`
	Parts                []partXML `xml:"Part"`
}

// listParts answers ListParts.
func listParts(c *call) error {
	most, err := c.number("max-parts", maxPage, maxPage)
	if err != nil {
		return err
	}
	after, err := c.number("part-number-marker", 0, maxParts)
	if err != nil {
		return err
	}
	up, err := c.upload()
	if err != nil {
		return err
	}
	var page store.PartPage
	if most > 0 {
		if page, err = c.Store.Parts(c.storeKey(), up.ID, after, most); err != nil {
			return err
		}
	}
	out := partsXML{
		Bucket: c.Bucket, Key: c.Key, UploadID: up.ID, Initiator: c.owner(), Owner: c.owner(), StorageClass: class(up.Meta),
		PartNumberMarker: after, NextPartNumberMarker: page.Next, MaxParts: most, IsTruncated: page.More, ChecksumAlgorithm: up.Algorithm,
	}
	if up.Algorithm != "" {
		out.ChecksumType = checksumType(store.Checksum{Composite: !up.FullObject})
	}
	for _, p := range page.Parts {
		out.Parts = append(out.Parts, partXML{p.Number, timestamp(p.Modified), quote(p.ETag), p.Size, checksumsOf(p.Checksum, 0)})
	}
	return c.reply(out)
}

type uploadXML struct {
	Key               string
	UploadID          string `xml:"UploadId"`
	Initiator         *owner
	Owner             *owner
	StorageClass      string
	Initiated         string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

type uploadsXML struct {
	XMLName            xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListMultipartUploadsResult"`
	Bucket             string
	KeyMarker          string
	UploadIDMarker     string `xml:"UploadIdMarker"`
	NextKeyMarker      string
	NextUploadIDMarker string `xml:"NextUploadIdMarker"`
	Prefix             string
	Delimiter          *string `xml:",omitempty"`
	EncodingType       *string `xml:",omitempty"`
	MaxUploads         int
	IsTruncated        bool
	Uploads            []uploadXML `xml:"Upload"`
	CommonPrefixes     []prefixXML
}

// listUploads answers ListMultipartUploads.
func listUploads(c *call) error {
	l, err := c.listing("max-uploads")
	if err != nil {
		return err
	}
	if l.query.After = c.query.Get("key-marker"); l.query.After != "" {
		l.query.AfterVersion = c.query.Get("upload-id-marker")
	}
	var page store.UploadPage
	if l.query.Max == 0 {
		_, err = c.Store.Bucket(c.VM.ID, c.Bucket)
	} else {
		page, err = c.Store.Uploads(c.r.Context(), l.query)
	}
	if err != nil {
		return err
	}
	out := uploadsXML{
		Bucket: c.Bucket, KeyMarker: l.text(l.query.After), UploadIDMarker: l.query.AfterVersion, Prefix: l.text(l.query.Prefix),
		EncodingType: l.encoding, MaxUploads: l.query.Max, IsTruncated: page.More, CommonPrefixes: l.prefixes(page.Prefixes),
	}
	if l.delimiter != nil {
		out.Delimiter = new(l.text(*l.delimiter))
	}
	if page.More {
		out.NextKeyMarker, out.NextUploadIDMarker = l.text(page.Next), page.NextUpload
	}
	for _, up := range page.Uploads {
		x := uploadXML{
			Key: l.text(up.Key.Name), UploadID: up.ID, Initiator: c.owner(), Owner: c.owner(), StorageClass: class(up.Meta),
			Initiated: timestamp(up.Started), ChecksumAlgorithm: up.Algorithm,
		}
		if up.Algorithm != "" {
			x.ChecksumType = checksumType(store.Checksum{Composite: !up.FullObject})
		}
		out.Uploads = append(out.Uploads, x)
	}
	return c.reply(out)
}
