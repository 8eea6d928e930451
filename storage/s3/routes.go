package s3

import (
	"net/http"
	"slices"
	"sync"
)

// verb carries out one kind of request.
type verb func(*call) error

// route is one line of a table: the first whose parameters the query has is taken.
type route struct {
	method string
	query  string // the parameter that must be there; "" for none
	verb   verb
}

// route finds the verb of the request.
func (c *call) route() (route, error) {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		return route{}, Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "The method %.20q is not allowed.", c.r.Method)
	}
	table := serviceRoutes()
	switch {
	case c.Key != "":
		table = objectRoutes()
	case c.Bucket != "":
		table = bucketRoutes()
	}
	for _, r := range table {
		if r.method != c.r.Method || r.query != "" && !c.query.Has(r.query) {
			continue
		}
		if r.query == "" && c.sub(table) { // it is about a part of the resource, not about all of it
			break
		}
		return r, nil
	}
	return route{}, Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
}

// sub reports whether the query names a sub-resource that another method has.
func (c *call) sub(table []route) bool {
	return slices.ContainsFunc(table, func(r route) bool { return r.query != "" && c.query.Has(r.query) })
}

func serviceRoutes() []route {
	return []route{{http.MethodGet, "", listBuckets}}
}

// refused is the verb of what is not implemented.
func refused(what string) verb {
	return func(*call) error { return notImplemented("%s is not implemented.", what) }
}

// objectRoutes and bucketRoutes are made once: they are searched for each request.
//
//nolint:gochecknoglobals // constant tables
var (
	objectRoutes = sync.OnceValue(newObjectRoutes)
	bucketRoutes = sync.OnceValue(newBucketRoutes)
)

func newObjectRoutes() []route {
	routes := []route{
		{http.MethodGet, "attributes", getAttributes},
		{http.MethodGet, "acl", getACL},
		{http.MethodPut, "acl", putACL},
		{http.MethodGet, "tagging", getTags},
		{http.MethodPut, "tagging", putTags},
		{http.MethodDelete, "tagging", deleteTags},
		{http.MethodGet, "retention", getRetention},
		{http.MethodPut, "retention", putRetention},
		{http.MethodGet, "legal-hold", getLegalHold},
		{http.MethodPut, "legal-hold", putLegalHold},
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		for _, name := range []string{"torrent", "restore", "select", "annotation", "renameObject", "encryption", "updateEncryption"} {
			routes = append(routes, route{method, name, refused("The sub-resource " + name)})
		}
	}
	return append(routes, []route{
		{http.MethodGet, "uploadId", listParts},
		{http.MethodPut, "uploadId", putPart},
		{http.MethodDelete, "uploadId", abortUpload},
		{http.MethodPost, "uploadId", completeUpload},
		{http.MethodPost, "uploads", createUpload},
		{http.MethodGet, "", getObject},
		{http.MethodHead, "", headObject},
		{http.MethodPut, "", putOrCopy},
		{http.MethodDelete, "", deleteObject},
	}...)
}

func putOrCopy(c *call) error { return c.orCopy(putObject, copyObject) }

func putPart(c *call) error { return c.orCopy(uploadPart, copyPart) }

// orCopy carries out a write, or the copy that the request's source makes of it. A source is looked
// up in the namespace of who asks, which is not always that of the bucket's VM. A presigned URL may
// name the source in its query.
func (c *call) orCopy(write, copies verb) error {
	switch {
	case c.r.Header.Get("X-Amz-Copy-Source") == "":
		return write(c)
	case c.Anonymous:
		return ErrNotPublic()
	}
	leave, err := c.findSource()
	if err != nil {
		return err
	}
	defer leave()
	return copies(c)
}

func newBucketRoutes() []route {
	routes := []route{
		{http.MethodPost, "delete", deleteObjects},
		{http.MethodGet, "location", getLocation},
		{http.MethodGet, "versioning", getVersioning},
		{http.MethodPut, "versioning", putVersioning},
		{http.MethodGet, "versions", listVersions},
		{http.MethodGet, "uploads", listUploads},
		{http.MethodGet, "acl", getACL},
		{http.MethodPut, "acl", putACL},
		{http.MethodGet, "tagging", getBucketTags},
		{http.MethodPut, "tagging", putBucketTags},
		{http.MethodDelete, "tagging", deleteConfig("tagging")},
		{http.MethodGet, "object-lock", getLockConfig},
		{http.MethodPut, "object-lock", putLockConfig},
		{http.MethodGet, "logging", fixed("BucketLoggingStatus", "")},
		{http.MethodGet, notificationConfig, getNotification},
		{http.MethodPut, notificationConfig, putNotification},
		{http.MethodGet, "accelerate", fixed("AccelerateConfiguration", "")},
		{http.MethodGet, "requestPayment", fixed("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>")},
	}
	routes = append(routes, route{http.MethodGet, "policyStatus", getPolicyStatus}, route{http.MethodGet, policyConfig, getConfig(policyConfig)},
		route{http.MethodPut, policyConfig, putPolicy}, route{http.MethodDelete, policyConfig, deleteConfig(policyConfig)})
	for _, name := range []string{"cors", "lifecycle", "website", "replication", "encryption", "publicAccessBlock", "ownershipControls"} {
		routes = append(routes, route{http.MethodGet, name, getConfig(name)}, route{http.MethodPut, name, putConfig(name)},
			route{http.MethodDelete, name, deleteConfig(name)})
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		for _, name := range []string{
			"policyStatus", "logging", "notification", "accelerate", "requestPayment", "analytics", "inventory", "metrics",
			"intelligent-tiering", "session", "metadataTable", "metadataConfiguration", "abac",
		} {
			routes = append(routes, route{method, name, refused("The sub-resource " + name)})
		}
	}
	return append(routes, []route{
		{http.MethodGet, "", listObjects},
		{http.MethodHead, "", headBucket},
		{http.MethodPut, "", createBucket},
		{http.MethodDelete, "", deleteBucket},
	}...)
}
