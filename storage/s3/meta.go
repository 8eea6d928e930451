package s3

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lodge/storage/store"
)

// Limits of what a client keeps with an object, as S3 has them.
const (
	maxMetadata   = 2 << 10 // bytes of names and values of x-amz-meta-*
	maxTags       = 10      // of an object
	maxBucketTags = 50
	maxTagName    = 128 // characters
	maxTagValue   = 256
	metaPrefix    = "x-amz-meta-"
)

// keptHeaders are the headers of an object beside its metadata, which come back with it.
func keptHeaders() []string {
	return []string{"cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires"}
}

// storageClasses can be asked for and are kept as a name; all objects are stored alike. Those whose
// objects must be restored before they can be read are refused.
func storageClasses() []string {
	return []string{"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"}
}

// meta is what the headers of a write set.
func (c *call) meta() (store.Meta, error) {
	m := store.Meta{Header: map[string]string{}}
	for _, name := range keptHeaders() {
		if v := strings.Join(c.r.Header.Values(name), ","); v != "" {
			m.Header[name] = v
		}
	}
	if encoding := withoutChunked(m.Header["content-encoding"]); encoding != "" {
		m.Header["content-encoding"] = encoding
	} else {
		delete(m.Header, "content-encoding")
	}
	size := 0
	for name, values := range c.r.Header {
		lower := strings.ToLower(name)
		if rest, ok := strings.CutPrefix(lower, metaPrefix); ok {
			value := strings.Join(values, ",")
			m.Header[lower] = value
			size += len(rest) + len(value)
		}
	}
	if size > maxMetadata {
		return m, badRequest("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
	}
	if err := c.storageClass(&m); err != nil {
		return m, err
	}
	tags, err := tagsOf(c.r.Header.Get("X-Amz-Tagging"))
	if m.Tags = tags; err != nil {
		return m, err
	}
	if m.ACL, err = c.aclOf(); err != nil {
		return m, err
	}
	return m, c.lockOf(&m)
}

// storageClass sets the class and the redirect, which a copy never takes from its source.
func (c *call) storageClass(m *store.Meta) error {
	class := c.r.Header.Get("X-Amz-Storage-Class")
	if class != "" && !slices.Contains(storageClasses(), class) {
		return badRequest("InvalidStorageClass", "The storage class %.40q is not possible here. Leave it out: all objects are stored alike.", class)
	}
	if delete(m.Header, "x-amz-storage-class"); class != "" && class != "STANDARD" {
		m.Header["x-amz-storage-class"] = class
	}
	redirect := c.r.Header.Get("X-Amz-Website-Redirect-Location")
	delete(m.Header, "x-amz-website-redirect-location")
	if redirect == "" {
		return nil
	}
	if len(redirect) > maxMetadata {
		return badRequest("InvalidRedirectLocation", "The length of website redirect location cannot exceed %d characters.", maxMetadata)
	}
	if !strings.HasPrefix(redirect, "/") && !strings.HasPrefix(redirect, "http://") && !strings.HasPrefix(redirect, "https://") {
		return badRequest("InvalidRedirectLocation", "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.")
	}
	m.Header["x-amz-website-redirect-location"] = redirect
	return nil
}

// class is the storage class of an object.
func class(m store.Meta) string {
	if v := m.Header["x-amz-storage-class"]; v != "" {
		return v
	}
	return "STANDARD"
}

// withoutChunked removes aws-chunked from a list of encodings: it belongs to the transfer, not to
// the object.
func withoutChunked(list string) string {
	var kept []string
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); e != "" && !strings.EqualFold(e, "aws-chunked") {
			kept = append(kept, e)
		}
	}
	return strings.Join(kept, ",")
}

// tagsOf parses the x-amz-tagging header, a query; nil if it is empty.
func tagsOf(header string) (map[string]string, error) {
	if header == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(header)
	if err != nil {
		return nil, invalidArgument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	tags := map[string]string{}
	for name, all := range values {
		if len(all) != 1 {
			return nil, invalidArgument("The header 'x-amz-tagging' has the tag %.128q more than once.", name)
		}
		tags[name] = all[0]
	}
	return tags, checkTags(tags, maxTags)
}

func checkTags(tags map[string]string, most int) error {
	if len(tags) > most {
		return badRequest("InvalidTag", "There are %d tags; at most %d are possible.", len(tags), most)
	}
	for name, value := range tags {
		switch {
		case name == "" || utf8.RuneCountInString(name) > maxTagName || !utf8.ValidString(name):
			return badRequest("InvalidTag", "The TagKey you have provided is invalid")
		case utf8.RuneCountInString(value) > maxTagValue || !utf8.ValidString(value):
			return badRequest("InvalidTag", "The TagValue you have provided is invalid")
		case strings.HasPrefix(strings.ToLower(name), "aws:"):
			return badRequest("InvalidTag", "System tags cannot be added/updated by requester.")
		}
	}
	return nil
}

// setObject sets the headers that describe an object.
func (c *call) setObject(o store.Object) {
	h := c.w.Header()
	h.Set("Content-Type", "binary/octet-stream")
	for name, value := range o.Header {
		if strings.HasPrefix(name, "x-amz-") {
			c.set(name, value)
		} else {
			h.Set(name, value)
		}
	}
	c.set("Etag", quote(o.ETag))
	h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	if len(o.Tags) > 0 {
		c.set("x-amz-tagging-count", strconv.Itoa(len(o.Tags)))
	}
	c.setVersion(o)
	c.setLock(o)
	c.setSealed(o.Sealed)
}

// setVersion names the version, unless the bucket never had versions.
func (c *call) setVersion(o store.Object) {
	if o.Version != "" && (o.Version != "null" || c.query.Has("versionId")) {
		c.set("x-amz-version-id", o.Version)
	}
}

func quote(etag string) string { return `"` + etag + `"` }

// unquote is an ETag as the store has it.
func unquote(etag string) string { return strings.Trim(strings.TrimSpace(etag), `"`) }

// ifMatch is the ETag that a write or a deletion demands; "" if it demands none.
func ifMatch(h http.Header) (string, error) {
	values := h.Values("If-Match")
	if len(values) == 0 {
		return "", nil
	}
	return demanded(values[0])
}

// demanded is an ETag that is demanded. No object has an empty one, which a client sends that has lost
// the ETag of what it means.
func demanded(etag string) (string, error) {
	if etag = unquote(etag); etag == "" {
		return "", store.ErrPrecondition
	}
	return etag, nil
}

// writeCondition is the condition of a write.
func writeCondition(h http.Header) (store.Condition, error) {
	none := h.Get("If-None-Match")
	match, err := ifMatch(h)
	switch {
	case err != nil:
		return store.Condition{}, err
	case match != "" && none != "":
		return store.Condition{}, notImplemented("If-Match and If-None-Match cannot be combined in a write.")
	case none != "" && none != "*":
		return store.Condition{}, notImplemented("If-None-Match of a write must be *.")
	case h.Get("If-Modified-Since") != "" || h.Get("If-Unmodified-Since") != "":
		return store.Condition{}, notImplemented("A write has no condition of a date. Use If-Match or If-None-Match.")
	}
	return store.Condition{IfMatch: match, IfNoneMatch: none}, nil
}

// conditions are those of a read (RFC 9110, section 13.2.2), of the request or of a copy's source.
type conditions struct{ match, none, modified, unmodified string }

func readConditions(h http.Header, prefix string) conditions {
	return conditions{
		h.Get(prefix + "If-Match"), h.Get(prefix + "If-None-Match"),
		h.Get(prefix + "If-Modified-Since"), h.Get(prefix + "If-Unmodified-Since"),
	}
}

// check returns 200, 304 or 412.
func (k conditions) check(o store.Object) int {
	modified := o.Modified.Truncate(time.Second)
	since := func(text string) (time.Time, bool) {
		t, err := http.ParseTime(text)
		return t, err == nil
	}
	switch {
	case k.match != "":
		if !listed(k.match, o.ETag) {
			return http.StatusPreconditionFailed
		}
	case k.unmodified != "":
		if t, ok := since(k.unmodified); ok && modified.After(t) {
			return http.StatusPreconditionFailed
		}
	}
	switch {
	case k.none != "":
		if listed(k.none, o.ETag) {
			return http.StatusNotModified
		}
	case k.modified != "":
		if t, ok := since(k.modified); ok && !modified.After(t) {
			return http.StatusNotModified
		}
	}
	return http.StatusOK
}

// listed reports whether a list of ETags has one, or is *.
func listed(list, etag string) bool {
	for e := range strings.SplitSeq(list, ",") {
		if e = unquote(strings.TrimPrefix(strings.TrimSpace(e), "W/")); e == etag || e == "*" {
			return true
		}
	}
	return false
}
