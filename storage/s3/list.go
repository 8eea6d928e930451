package s3

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"strconv"

	"lodge/storage/sigv4"
	"lodge/storage/store"
)

// maxPage limits the entries of one page of a listing.
const maxPage = 1000

// listing has the parameters that all listings of a bucket share.
type listing struct {
	query     store.Query
	delimiter *string // echoed only if it is not empty
	encoding  *string
}

// listing parses the parameters; most is the name of the limit.
func (c *call) listing(most string) (listing, error) {
	l := listing{query: store.Query{VM: c.VM.ID, Bucket: c.Bucket, Prefix: c.query.Get("prefix"), Delimiter: c.query.Get("delimiter")}}
	if l.query.Delimiter != "" {
		l.delimiter = &l.query.Delimiter
	}
	if c.query.Has("encoding-type") {
		kind := c.query.Get("encoding-type")
		if kind != "url" {
			return l, invalidArgument("Invalid Encoding Method specified in Request")
		}
		l.encoding = &kind
	}
	var err error
	l.query.Max, err = c.number(most, maxPage, maxPage)
	if c.Anonymous {
		l.query.Most, l.query.Weigh = maxStrangersPage, rowBytes
		if c.query.Has("versions") || c.query.Has("uploads") { // their entries are longer
			l.query.Max = min(l.query.Max, maxStrangersList)
		}
	}
	return l, err
}

// number is a number in the query, not negative; more than most counts as most.
func (c *call) number(name string, otherwise, most int) (int, error) {
	text := c.query.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, ok := digits(text)
	if !ok {
		return 0, invalidArgument("Provided %s not an integer or within integer range", name)
	}
	return int(min(n, int64(most))), nil
}

// text is a key as the listing shows it.
func (l listing) text(key string) string {
	if l.encoding == nil {
		return key
	}
	return sigv4.Escape(key, true)
}

// echo is a parameter as the listing shows it; nil if the request has none.
func (c *call) echo(l listing, name string) *string {
	if !c.query.Has(name) {
		return nil
	}
	text := l.text(c.query.Get(name))
	return &text
}

type prefixXML struct{ Prefix string }

type objectXML struct {
	Key               string
	LastModified      string
	ETag              string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              int64
	StorageClass      string
	Owner             *owner `xml:",omitempty"`
}

type listXML struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Marker                *string `xml:",omitempty"`
	NextMarker            string  `xml:",omitempty"`
	StartAfter            *string `xml:",omitempty"`
	ContinuationToken     *string `xml:",omitempty"`
	NextContinuationToken string  `xml:",omitempty"`
	KeyCount              *int    `xml:",omitempty"`
	MaxKeys               int
	Delimiter             *string `xml:",omitempty"`
	EncodingType          *string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []objectXML
	CommonPrefixes        []prefixXML
}

// page lists objects. Inside the VM, a bucket that does not exist is empty: the first write makes it, and
// tools list before they write.
func (c *call) page(q store.Query) (store.Page, error) {
	if q.Max == 0 {
		return store.Page{}, nil
	}
	page, err := c.Store.List(c.r.Context(), q)
	if c.Inside && errors.Is(err, store.ErrNoBucket) {
		err = nil
	}
	return page, err
}

// listObjects answers both versions of ListObjects.
func listObjects(c *call) error {
	l, err := c.listing("max-keys")
	if err != nil {
		return err
	}
	out := listXML{Name: c.Bucket, Prefix: l.text(l.query.Prefix), MaxKeys: l.query.Max, EncodingType: l.encoding}
	if l.delimiter != nil {
		out.Delimiter = new(l.text(*l.delimiter))
	}
	second := c.query.Has("list-type")
	if second && c.query.Get("list-type") != "2" {
		return invalidArgument("Invalid List Type specified in Request")
	}
	withOwner := true
	if second {
		withOwner = c.query.Get("fetch-owner") == "true"
		l.query.After = c.query.Get("start-after")
		out.StartAfter, out.ContinuationToken = c.echo(l, "start-after"), nil
		if c.query.Has("continuation-token") {
			out.ContinuationToken = new(c.query.Get("continuation-token"))
			after, err := untoken(*out.ContinuationToken)
			if err != nil {
				return err
			}
			l.query.After = max(l.query.After, after)
		}
	} else {
		l.query.After = c.query.Get("marker")
		out.Marker = new(l.text(l.query.After))
	}
	page, err := c.page(l.query)
	if err != nil {
		return err
	}
	out.IsTruncated = page.More
	out.fill(c, l, page, withOwner)
	switch {
	case second:
		out.KeyCount = new(len(page.Objects) + len(page.Prefixes))
		if page.More {
			out.NextContinuationToken = token(page.Next)
		}
	case page.More && l.delimiter != nil:
		out.NextMarker = l.text(page.Next)
	}
	return c.reply(out)
}

func (out *listXML) fill(c *call, l listing, page store.Page, withOwner bool) {
	for _, o := range page.Objects {
		e := objectXML{
			Key: l.text(o.Key.Name), LastModified: timestamp(o.Modified), ETag: quote(o.ETag), Size: o.Size, StorageClass: class(o.Meta),
		}
		if o.Checksum.Algorithm != "" {
			e.ChecksumAlgorithm, e.ChecksumType = o.Checksum.Algorithm, checksumType(o.Checksum)
		}
		if withOwner {
			e.Owner = c.owner()
		}
		out.Contents = append(out.Contents, e)
	}
	out.CommonPrefixes = l.prefixes(page.Prefixes)
}

func (l listing) prefixes(all []string) (out []prefixXML) {
	for _, p := range all {
		out = append(out, prefixXML{l.text(p)})
	}
	return out
}

// token is a continuation token: opaque for clients.
func token(after string) string { return base64.RawURLEncoding.EncodeToString([]byte(after)) }

func untoken(token string) (string, error) {
	after, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", invalidArgument("The continuation token provided is incorrect")
	}
	return string(after), nil
}

type versionXML struct {
	XMLName      xml.Name
	Key          string
	VersionID    string `xml:"VersionId"`
	IsLatest     bool
	LastModified string
	ETag         string `xml:",omitempty"`

	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`

	Size         *int64 `xml:",omitempty"`
	StorageClass string `xml:",omitempty"`
	Owner        *owner
}

type versionsXML struct {
	XMLName             xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListVersionsResult"`
	Name                string
	Prefix              string
	KeyMarker           string
	VersionIDMarker     string `xml:"VersionIdMarker"`
	NextKeyMarker       string `xml:",omitempty"`
	NextVersionIDMarker string `xml:"NextVersionIdMarker,omitempty"`
	MaxKeys             int
	Delimiter           *string `xml:",omitempty"`
	EncodingType        *string `xml:",omitempty"`
	IsTruncated         bool
	Versions            []versionXML
	CommonPrefixes      []prefixXML
}

// listVersions answers ListObjectVersions.
func listVersions(c *call) error {
	l, err := c.listing("max-keys")
	if err != nil {
		return err
	}
	l.query.Versions, l.query.After, l.query.AfterVersion = true, c.query.Get("key-marker"), c.query.Get("version-id-marker")
	if l.query.AfterVersion != "" && l.query.After == "" {
		return invalidArgument("A version-id marker cannot be specified without a key marker.")
	}
	page, err := c.page(l.query)
	if err != nil {
		return err
	}
	out := versionsXML{
		Name: c.Bucket, Prefix: l.text(l.query.Prefix), KeyMarker: l.text(l.query.After), VersionIDMarker: l.query.AfterVersion,
		MaxKeys: l.query.Max, EncodingType: l.encoding, IsTruncated: page.More, CommonPrefixes: l.prefixes(page.Prefixes),
	}
	if l.delimiter != nil {
		out.Delimiter = new(l.text(*l.delimiter))
	}
	if page.More {
		out.NextKeyMarker, out.NextVersionIDMarker = l.text(page.Next), page.NextVersion
	}
	for _, o := range page.Objects {
		v := versionXML{
			XMLName: xml.Name{Space: xmlns, Local: "DeleteMarker"}, Key: l.text(o.Key.Name), VersionID: o.Version, IsLatest: o.Latest,
			LastModified: timestamp(o.Modified), Owner: c.owner(),
		}
		if !o.Deleted {
			v.XMLName.Local, v.ETag, v.Size, v.StorageClass = "Version", quote(o.ETag), &o.Size, class(o.Meta)
			if o.Checksum.Algorithm != "" {
				v.ChecksumAlgorithm, v.ChecksumType = o.Checksum.Algorithm, checksumType(o.Checksum)
			}
		}
		out.Versions = append(out.Versions, v)
	}
	return c.reply(out)
}

type bucketXML struct {
	Name         string
	CreationDate string
	BucketRegion string
}

type bucketsXML struct {
	XMLName           xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
	Owner             *owner
	Buckets           []bucketXML `xml:"Buckets>Bucket"`
	ContinuationToken string      `xml:",omitempty"`
	Prefix            *string     `xml:",omitempty"`
}

// listBuckets answers ListBuckets.
func listBuckets(c *call) error {
	const most = 10_000
	limit, err := c.number("max-buckets", most, most)
	if err != nil {
		return err
	}
	if limit == 0 {
		return invalidArgument("max-buckets must be between 1 and %s.", strconv.Itoa(most))
	}
	after, err := untoken(c.query.Get("continuation-token"))
	if err != nil {
		return err
	}
	buckets, more, err := c.Store.Buckets(c.VM.ID, c.query.Get("prefix"), after, limit)
	if err != nil {
		return err
	}
	out := bucketsXML{Owner: c.owner()}
	if c.query.Has("prefix") {
		out.Prefix = new(c.query.Get("prefix"))
	}
	for _, b := range buckets {
		out.Buckets = append(out.Buckets, bucketXML{b.Name, timestamp(b.Created), region})
		after = b.Name
	}
	if more {
		out.ContinuationToken = token(after)
	}
	return c.reply(out)
}
