package storage

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"lodge/gateway"
	"lodge/storage/engine"
	"lodge/storage/sigv4"
)

// maxSmallBody limits bodies that are read into memory: lists of parts and of keys to delete. Tags
// and settings are below longList.
const maxSmallBody = 8 << 20

// target is the subject of a request: all buckets (both empty), a bucket, or an object.
type target struct{ bucket, key string }

// parseTarget parses bucket and key from the host and the path, decoded exactly once, and checks
// them. The engine's path is made from the result.
func parseTarget(r *http.Request) (target, error) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	var t target
	if bucket, ok := gateway.SplitS3Host(r.Host); ok && bucket != "" {
		t = target{bucket, path}
	} else {
		t.bucket, t.key, _ = strings.Cut(path, "/")
	}
	if t.bucket == "" {
		if t.key != "" {
			return t, errorf(http.StatusBadRequest, "InvalidBucketName", "The path has no bucket.")
		}
		return t, nil
	}
	if err := engine.CheckBucket(t.bucket); err != nil {
		return t, err
	}
	if t.key == "" {
		return t, nil
	}
	return t, engine.CheckKey(t.key)
}

func (t target) path() string {
	if t.key == "" {
		return "/" + t.bucket
	}
	return "/" + t.bucket + "/" + sigv4.Escape(t.key, true)
}

// isSubresource reports whether a query makes a PUT of an object something else than storing it.
func isSubresource(q url.Values) bool {
	return slices.ContainsFunc([]string{"acl", "tagging", "retention", "legal-hold", "restore", "torrent", "attributes", "annotation", "renameObject", "encryption"}, q.Has)
}

// storesBody reports whether the body is an object or a part of one: it streams, and may be large.
func (t target) storesBody(r *http.Request, q url.Values) bool {
	return r.Method == http.MethodPut && t.key != "" && !isSubresource(q) && r.Header.Get("X-Amz-Copy-Source") == ""
}

// makesObject reports whether the request makes an object, or begins an upload: then its bucket is
// made, too.
func (t target) makesObject(r *http.Request, q url.Values) bool {
	if t.key == "" {
		return false
	}
	return r.Method == http.MethodPut && !isSubresource(q) && !q.Has("uploadId") || r.Method == http.MethodPost && q.Has("uploads")
}

// rewrite makes the request for the engine: same method, checked target, the query without its
// signature, and r's body b, plain or with a trailing checksum for the engine to verify.
func rewrite(r *http.Request, b *body, t target, who caller) (*http.Request, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errorf(http.StatusBadRequest, "InvalidArgument", "The query cannot be decoded.")
	}
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Content-Sha256"} {
		query.Del(name)
	}
	out := &http.Request{
		Method: r.Method, Header: cleanHeader(r.Header), ContentLength: r.ContentLength,
		URL: &url.URL{Path: mustUnescape(t.path()), RawPath: t.path(), RawQuery: encodeQuery(query)},
	}
	switch {
	case r.Method == http.MethodPut && t.key == "" && len(query) == 0:
		err = createBucketBody(out, b)
	case t.storesBody(r, query):
		err = storedBody(out, b, r, who.chain)
	default:
		err = smallBody(out, b, r, query)
	}
	return out, err
}

// encodeQuery encodes values as SigV4 does, so that the signed text is the one that is parsed.
func encodeQuery(q url.Values) string { return strings.ReplaceAll(q.Encode(), "+", "%20") }

func mustUnescape(path string) string {
	plain, _ := url.PathUnescape(path) // path escaped it
	return plain
}

// cleanHeader copies the headers but those of the connection and of the signature.
func cleanHeader(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		out[name] = []string{strings.Join(values, ",")}
	}
	for _, name := range []string{
		"Authorization", "X-Amz-Date", "X-Amz-Security-Token",
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
		"Content-Length", "Host", "Cookie", "Origin",
	} {
		out.Del(name)
	}
	return out
}

// createBucketBody removes the region that the client names: there is one region, and every name of
// it is accepted.
func createBucketBody(out *http.Request, b *body) error {
	raw, err := io.ReadAll(io.LimitReader(b, 64<<10))
	if err != nil {
		return err
	}
	var conf struct {
		Tags     *struct{} `xml:"Tags"`
		Bucket   *struct{} `xml:"Bucket"`
		Location *struct{} `xml:"Location"`
	}
	if len(raw) > 0 && xml.Unmarshal(raw, &conf) != nil {
		return errorf(http.StatusBadRequest, "MalformedXML", "The body is not the XML of a bucket's configuration.")
	}
	if conf.Tags != nil || conf.Bucket != nil || conf.Location != nil {
		return errNotImplemented("Tags at creation, and directory buckets, are not implemented. Tag the bucket afterwards.")
	}
	out.Body, out.ContentLength = http.NoBody, 0
	out.Header.Del("Content-Md5")
	out.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
	return nil
}

func smallBody(out *http.Request, b *body, r *http.Request, query url.Values) error {
	if r.ContentLength < 0 {
		return errNoLength("Content-Length")
	}
	most, items := int64(longList), maxKeys
	if r.Method == http.MethodPost {
		most = maxSmallBody
	}
	if query.Has("uploadId") {
		items = maxParts
	}
	if r.ContentLength > most {
		return errorf(http.StatusBadRequest, "MaxMessageLengthExceeded", "The body has %d bytes; at most %d are possible here.", r.ContentLength, most)
	}
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if strings.HasPrefix(hash, "STREAMING-") {
		return errorf(http.StatusBadRequest, "InvalidRequest", "An aws-chunked body is possible with PutObject and UploadPart only.")
	}
	if hash == "" {
		out.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
	}
	if r.ContentLength == 0 {
		out.Body = http.NoBody
		return nil
	}
	list, err := readXML(b, items)
	if failed := b.failure(); failed != nil {
		return failed
	}
	out.Body = io.NopCloser(bytes.NewReader(list))
	return err
}
