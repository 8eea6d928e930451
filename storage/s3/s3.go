// Package s3 is the S3 protocol on net/http: it turns requests into calls of a store, and what the
// store answers into S3's headers and XML.
//
// The caller has identified the VM. Serve finds the verb of a request by its method and its query
// (routes.go), and rejects what no verb here carries out. Each verb checks its parameters, calls the
// store in the VM's namespace and answers. A body is verified while it is read (payload.go): the
// store makes nothing visible before its end is proven.
//
// This package never decides who a caller is, and ignores no header that changes the meaning of a
// request: what it does not carry out it refuses (refuse.go).
package s3

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"lodge/gateway"
	"lodge/storage/sigv4"
	"lodge/storage/store"
)

// Handler serves S3 from a store.
type Handler struct {
	Store  *store.Store
	Logger *slog.Logger
	Now    func() time.Time

	SealKey [32]byte // encrypts the keys of objects (SSE-S3)

	policies policyCache
}

// Caller is the VM that a request is from, as established before.
type Caller struct {
	VM        gateway.Identity
	Inside    bool                 // the request came from inside the VM, on its tap
	Host      bool                 // the request came to the host's own door, from the host
	Anonymous bool                 // nobody signed the request: only what is public is possible
	Reads     bool                 // with Anonymous: the bucket is shared with who asks, to list and to read what no policy denies
	Granted   gateway.BucketAccess // not "": the bucket is another VM's, in whose place VM is, and this is what that has granted
	Source    FindSource           // of copies; nil: in the VM's own namespace
	Chain     *sigv4.Chain         // not nil: the signature is verified, and this verifies the chunks of the body
}

// FindSource finds the bucket of a copy's source by the name that the caller has for it.
type FindSource func(ctx context.Context, bucket string) (CopySource, error)

// call is one request on its way through a verb.
type call struct {
	*Handler
	Caller
	Target
	w     http.ResponseWriter
	r     *http.Request
	query url.Values
	from  CopySource // of a copy
}

// Serve carries out the request of a caller about t, which ParseTarget has returned. It returns an
// error only if nothing has been answered yet; WriteError answers it. It panics with
// http.ErrAbortHandler if an answer has become incomplete.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, who Caller, t Target) error {
	c, err := h.newCall(w, r, who, t)
	if err != nil {
		return err
	}
	if c.query.Has("versionId") {
		if err := checkVersion(c.query.Get("versionId")); err != nil {
			return err
		}
	}
	c.cross()
	if err := c.refuse(); err != nil {
		return err
	}
	to, err := c.route()
	if err != nil {
		return err
	}
	if err := c.authorize(to); err != nil {
		return err
	}
	return to.verb(c)
}

func (h *Handler) newCall(w http.ResponseWriter, r *http.Request, who Caller, t Target) (*call, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Errorf(http.StatusBadRequest, "InvalidArgument", "The query cannot be decoded.")
	}
	if r, err = unpresigned(r, query); err != nil {
		return nil, err
	}
	return &call{Handler: h, Caller: who, Target: t, w: w, r: r, query: query}, nil
}

// storeKey is the target as the store names it.
func (c *call) storeKey() store.Key {
	return store.Key{VM: c.VM.ID, Bucket: c.Bucket, Name: c.Key}
}

// set sets a header of the answer under exactly this name: S3's own are in lower case, since boto3
// copies the names of metadata.
func (c *call) set(name, value string) {
	if value != "" {
		c.w.Header()[name] = []string{value}
	}
}
