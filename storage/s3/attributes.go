package s3

import (
	"encoding/xml"
	"net/http"
	"strings"

	"lodge/storage/store"
)

type objectPartsXML struct {
	IsTruncated          bool
	MaxParts             int
	NextPartNumberMarker int
	PartNumberMarker     int
	TotalPartsCount      int       `xml:"PartsCount"`
	Parts                []partXML `xml:"Part"`
}

type attributeChecksumXML struct {
	checksumsXML
	ChecksumType string
}

type attributesXML struct {
	XMLName      xml.Name              `xml:"http://s3.amazonaws.com/doc/2006-03-01/ GetObjectAttributesResponse"`
	ETag         string                `xml:",omitempty"`
	Checksum     *attributeChecksumXML `xml:",omitempty"`
	ObjectParts  *objectPartsXML       `xml:",omitempty"`
	StorageClass string                `xml:",omitempty"`
	ObjectSize   *int64                `xml:",omitempty"`
}

// getAttributes answers GetObjectAttributes.
func getAttributes(c *call) error {
	o, err := c.Store.Head(c.storeKey(), c.version())
	if err != nil {
		return c.missing(o, err)
	}
	if _, err := c.opening(o.Sealed, customerHeader); err != nil {
		return err
	}
	var out attributesXML
	list := strings.Join(c.r.Header.Values("X-Amz-Object-Attributes"), ",")
	if list == "" {
		return invalidArgument("Missing required header for this request: x-amz-object-attributes")
	}
	asked := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if asked[name] { // a list of parts is long
			return invalidArgument("The attribute %.40q is asked for twice.", name)
		}
		asked[name] = true
		switch name {
		case "ETag":
			out.ETag = o.ETag
		case "Checksum":
			if o.Checksum.Algorithm != "" {
				out.Checksum = &attributeChecksumXML{checksumsOf(o.Checksum, o.Parts), checksumType(o.Checksum)}
			}
		case "ObjectParts":
			if out.ObjectParts, err = c.objectParts(o); err != nil {
				return err
			}
		case "StorageClass":
			out.StorageClass = class(o.Meta)
		case "ObjectSize":
			out.ObjectSize = &o.Size
		default:
			return invalidArgument("Invalid attribute name specified: %.40q.", name)
		}
	}
	c.setVersion(o)
	c.w.Header().Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	return c.reply(out)
}

// objectParts is the page of an object's parts that the headers ask for.
func (c *call) objectParts(o store.Object) (*objectPartsXML, error) {
	if o.Parts == 0 {
		return nil, nil
	}
	out := &objectPartsXML{MaxParts: maxPage, TotalPartsCount: o.Parts}
	for name, to := range map[string]*int{"X-Amz-Max-Parts": &out.MaxParts, "X-Amz-Part-Number-Marker": &out.PartNumberMarker} {
		text := c.r.Header.Get(name)
		if text == "" {
			continue
		}
		n, ok := digits(text)
		if !ok || n > maxParts {
			return nil, invalidArgument("%s is no number of parts.", strings.ToLower(name))
		}
		*to = int(n)
	}
	out.MaxParts = min(out.MaxParts, maxPage)
	if out.MaxParts == 0 {
		return out, nil
	}
	page, err := c.Store.PartsOf(o.Key, o.Version, out.PartNumberMarker, out.MaxParts)
	if err != nil {
		return nil, err
	}
	out.IsTruncated, out.NextPartNumberMarker = page.More, page.Next
	for _, p := range page.Parts {
		out.Parts = append(out.Parts, partXML{PartNumber: p.Number, Size: p.Size, checksumsXML: checksumsOf(p.Checksum, 0)})
	}
	return out, nil
}
