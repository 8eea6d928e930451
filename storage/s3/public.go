package s3

import (
	"net/http"

	"lodge/gateway"
)

// ErrNotPublic is the one answer to who has not signed, for all that is not open to anybody: it is the same whether
// there is such a VM, bucket or key.
func ErrNotPublic() error {
	return denied("The request is not signed, and what it asks for is not public.")
}

// Face is what a bucket may show to anybody. The zero value is that of a bucket that does not exist, too.
type Face struct {
	Public bool // a policy, a list or a website may open something
	Site   bool // it has a website
}

// Face returns that of a bucket.
func (h *Handler) Face(vm gateway.ID, bucket string) Face {
	b, err := h.Store.Bucket(vm, bucket)
	if err != nil {
		return Face{}
	}
	_, site := b.Config[websiteConfig]
	_, policy := b.Config[policyConfig]
	return Face{Public: site || policy || ownershipOf(b) != enforced, Site: site}
}

// Public carries out a request without a signature, for a door outside: what the policy and the lists
// of the VM's bucket allow to everyone, else ErrNotPublic. As in S3, a key that is missing shows so to
// those alone who may list the bucket. Like Serve it returns an error only if nothing was answered yet; a header
// that was set before must not be sent with ErrNotPublic.
func (h *Handler) Public(w http.ResponseWriter, r *http.Request, who Caller, t Target) error {
	who.Anonymous, who.Inside, who.Chain = true, false, nil
	c, err := h.newCall(w, r, who, t)
	if err != nil || r.Header.Get("X-Amz-Copy-Source") != "" { // a copy would show what other buckets have
		return ErrNotPublic()
	}
	to, err := c.route()
	if err == nil {
		err = c.authorize(to)
	}
	if err != nil {
		return notPublic(err)
	}
	c.cross()
	if err := c.refuse(); err != nil {
		return err
	}
	err = to.verb(c)
	if known, ok := AsError(err); err == nil || !ok || known.Status != http.StatusNotFound || c.mayList() {
		return err
	}
	return ErrNotPublic()
}

// mayList reports whether the caller may list the bucket.
func (c *call) mayList() bool {
	j, err := c.judge(c.Bucket)
	return err == nil && j.allows("ListBucket", "") == nil
}

// notPublic is ErrNotPublic in place of any refusal. What the log must have stays as it is.
func notPublic(err error) error {
	if _, known := AsError(err); !known {
		return err
	}
	return ErrNotPublic()
}
