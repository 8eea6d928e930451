package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"lodge/gateway"
	"lodge/storage/store"
)

// maxPutBytes limits the body of one PUT: an object or a part.
const maxPutBytes = 5 << 30

// getObject answers GET of an object.
func getObject(c *call) error {
	body, err := c.Store.Get(c.storeKey(), c.version())
	if errors.Is(err, store.ErrDeleted) {
		return c.missing(body.Object, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read only
	key, err := c.opening(body.Sealed, customerHeader)
	if err != nil {
		return err
	}
	a, err := c.prepare(body.Object)
	if err != nil {
		return err
	}
	if a.status == http.StatusNotModified {
		c.begin(body.Object, a)
		return nil
	}
	var send func() (int64, error)
	if send, err = c.sender(body, key, a.part); err != nil {
		return err // what is damaged is found before the answer begins
	}
	c.begin(body.Object, a)
	if _, err := send(); err != nil {
		if errors.Is(err, store.ErrDamaged) {
			c.Logger.Error("object is damaged", gateway.LogVM(c.VM), slog.String("bucket", c.Bucket), slog.String("object", c.Key), slog.Any("err", err))
		}
		panic(http.ErrAbortHandler) // an incomplete answer must not look complete
	}
	return nil
}

// sender returns what sends a part of a body. It has verified the part's first byte.
func (c *call) sender(body *store.Body, key *secret, part span) (func() (int64, error), error) {
	switch {
	case part.length == 0:
		return func() (int64, error) { return 0, nil }, nil
	case key == nil:
		return func() (int64, error) { return body.CopyN(c.w, part.length) }, probe(body, part.offset)
	}
	first := make([]byte, 1)
	plain := key.plain(body, part)
	if _, err := io.ReadFull(plain, first); err != nil {
		return nil, err
	}
	return func() (int64, error) { return io.Copy(c.w, io.MultiReader(bytes.NewReader(first), plain)) }, nil
}

// probe reads the first byte of a part, which verifies what is around it.
func probe(body *store.Body, offset int64) error {
	if _, err := body.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	if _, err := body.Read(make([]byte, 1)); err != nil {
		return err
	}
	_, err := body.Seek(offset, io.SeekStart)
	return err
}

// headObject answers HEAD of an object.
func headObject(c *call) error {
	o, err := c.Store.Head(c.storeKey(), c.version())
	if err != nil {
		return c.missing(o, err)
	}
	if _, err := c.opening(o.Sealed, customerHeader); err != nil {
		return err
	}
	a, err := c.prepare(o)
	if err != nil {
		return err
	}
	c.begin(o, a)
	return nil
}

func checkVersion(id string) error {
	switch {
	case id == "":
		return invalidArgument("Version id cannot be the empty string")
	case !store.IsVersion(id):
		return invalidArgument("Invalid version id specified")
	}
	return nil
}

// version is the version that a request names; "" for the latest.
func (c *call) version() string { return c.query.Get("versionId") }

// missing adds to an error what S3 answers for a delete marker: its version, and that a marker, named by
// its version, has no GET.
func (c *call) missing(o store.Object, err error) error {
	if !errors.Is(err, store.ErrDeleted) {
		return err
	}
	c.set("x-amz-delete-marker", "true")
	c.setVersion(o)
	if c.version() != "" {
		c.set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
		return Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
	}
	return err
}

// answer is what a read answers with: all of an object, a part, or that it has not changed.
type answer struct {
	status int
	part   span
}

// prepare checks the conditions of a read of o, and finds the part that it asks for.
func (c *call) prepare(o store.Object) (a answer, err error) {
	if a.status = readConditions(c.r.Header, "").check(o); a.status == http.StatusPreconditionFailed {
		return a, store.ErrPrecondition
	}
	if a.status == http.StatusNotModified {
		return a, nil
	}
	part, partial, err := c.span(o)
	if a.part = part; partial {
		a.status = http.StatusPartialContent
	}
	return a, err
}

// begin writes the head of an answer.
func (c *call) begin(o store.Object, a answer) {
	c.setObject(o)
	h := c.w.Header()
	if a.status == http.StatusNotModified {
		h.Del("Content-Type")
		c.w.WriteHeader(a.status)
		return
	}
	c.override()
	h.Set("Content-Length", strconv.FormatInt(a.part.length, 10))
	if a.status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.part.offset, a.part.offset+a.part.length-1, o.Size))
	}
	c.w.WriteHeader(a.status)
}

// span finds the part of o that the request asks for, and sets what is told of a part's checksum.
func (c *call) span(o store.Object) (_ span, partial bool, _ error) {
	header, number := c.r.Header.Get("Range"), c.query.Get("partNumber")
	sums := c.r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED"
	switch {
	case header != "" && c.query.Has("partNumber"):
		return span{}, false, invalidRequest("Cannot specify both Range header and partNumber query parameter.")
	case c.query.Has("partNumber"):
		part, sum, err := c.partSpan(o, number)
		if err == nil && o.Parts > 0 {
			c.set("x-amz-mp-parts-count", strconv.Itoa(o.Parts))
		}
		if err == nil && sums {
			c.setChecksum(sum, 0)
		}
		return part, part.length > 0, err
	case header != "" && c.sameRange(o):
		part, ok, err := parseRange(header, o.Size)
		if ok || err != nil {
			return part, true, err
		}
	}
	if sums {
		c.setChecksum(o.Checksum, o.Parts)
	}
	return span{0, o.Size}, false, nil
}

// sameRange reports whether If-Range permits a part (RFC 9110, section 13.1.5).
func (c *call) sameRange(o store.Object) bool {
	since := c.r.Header.Get("If-Range")
	if since == "" {
		return true
	}
	if t, err := http.ParseTime(since); err == nil {
		return t.Equal(o.Modified.UTC().Truncate(time.Second))
	}
	return unquote(since) == o.ETag
}

// CheckOverrides refuses a request without a signature that sets headers of its answer, as S3 does:
// anybody could give an object another type or name.
func CheckOverrides(r *http.Request) error {
	query := r.URL.Query()
	if slices.ContainsFunc(keptHeaders(), func(name string) bool { return query.Has("response-" + name) }) {
		return invalidRequest("Request specific response headers cannot be used for anonymous GET requests.")
	}
	return nil
}

// override sets the headers that the query asks for.
func (c *call) override() {
	for _, name := range keptHeaders() {
		if v := c.query.Get("response-" + name); v != "" {
			c.w.Header().Set(name, v)
		}
	}
}

// putObject answers PUT of an object.
func putObject(c *call) error {
	if c.query.Has("partNumber") {
		return invalidArgument("A part needs an uploadId.")
	}
	meta, err := c.meta()
	if err != nil {
		return err
	}
	condition, err := writeCondition(c.r.Header)
	if err != nil {
		return err
	}
	body, err := c.payload(maxPutBytes, algorithm{})
	if err != nil {
		return err
	}
	o, err := c.putSealed(store.Write{Body: body, Size: body.size, MD5: body.md5, Meta: meta, Checksum: body.checksum, If: condition})
	if err != nil {
		return err
	}
	c.set("Etag", quote(o.ETag))
	c.set("x-amz-object-size", strconv.FormatInt(o.Size, 10))
	c.setVersion(o)
	c.setChecksum(o.Checksum, 0)
	return nil // 200
}

// putSealed stores an object, sealed by the headers of the request, and sets the headers about that.
func (c *call) putSealed(w store.Write) (store.Object, error) {
	key, err := c.sealing()
	if err != nil {
		return store.Object{}, err
	}
	w.Meta.Sealed = key.recordOf()
	if w, err = key.seal(w, wholeBody); err != nil {
		return store.Object{}, err
	}
	o, err := c.Store.Put(c.r.Context(), c.storeKey(), w)
	if err == nil {
		c.setSealed(o.Sealed)
	}
	return o, err
}

// deleteObject answers DELETE of an object, or of a version.
func deleteObject(c *call) error {
	condition, err := deleteCondition(c.r.Header)
	if err != nil {
		return err
	}
	o, err := c.Store.Delete(c.r.Context(), c.storeKey(), c.version(), condition, c.bypass())
	if err != nil {
		return err
	}
	if o.Deleted {
		c.set("x-amz-delete-marker", "true")
	}
	c.setVersion(o)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func deleteCondition(h http.Header) (store.Condition, error) {
	match, err := ifMatch(h)
	if err != nil {
		return store.Condition{}, err
	}
	condition := store.Condition{IfMatch: match}
	if v := h.Get("X-Amz-If-Match-Size"); v != "" {
		size, ok := digits(v)
		if !ok {
			return condition, invalidArgument("x-amz-if-match-size must be a number of bytes.")
		}
		condition.IfSize = &size
	}
	if v := h.Get("X-Amz-If-Match-Last-Modified-Time"); v != "" {
		t, err := http.ParseTime(v)
		if err != nil {
			return condition, invalidArgument("x-amz-if-match-last-modified-time must be a date of HTTP.")
		}
		condition.IfModified = t
	}
	return condition, nil
}

// bypass reports whether the request overrides the GOVERNANCE mode of object lock.
func (c *call) bypass() bool { return c.r.Header.Get("X-Amz-Bypass-Governance-Retention") == "true" }
