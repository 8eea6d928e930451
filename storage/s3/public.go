package s3

import (
	"cmp"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"lodge/gateway"
	"lodge/storage/store"
)

// ErrNotPublic is the one answer to who has not signed, for all that is not open to anybody: it is
// the same whether there is such a VM, bucket or key.
func ErrNotPublic() error {
	return denied("The request is not signed, and what it asks for is not public.")
}

// Face is what a bucket may show to anybody. The zero value is that of a bucket that does not
// exist, too.
type Face struct {
	Public     bool // a policy, a list or a website may open something to anybody
	Site       bool // it has a website
	Restricted bool // its public access block forbids to share it with everybody
}

// Face returns that of a bucket.
func (h *Handler) Face(vm gateway.ID, bucket string) Face {
	b, err := h.Store.Bucket(vm, bucket)
	if err != nil {
		return Face{}
	}
	_, site := b.Config[websiteConfig]
	block := accessBlockOf(b)
	lists := ownershipOf(b) != enforced && !block.IgnorePublicAcls
	return Face{
		Public: !block.RestrictPublicBuckets && (site || lists || h.opens(b)),
		Site:   site, Restricted: block.RestrictPublicBuckets,
	}
}

// opens reports whether the policy of a bucket allows something to everyone.
func (h *Handler) opens(b store.Bucket) bool {
	text, ok := b.Config[policyConfig]
	if !ok {
		return false
	}
	policy, err := h.policies.parse(text, b.Name) // a policy that cannot be applied opens nothing
	return err == nil && slices.ContainsFunc(policy, func(s statement) bool { return s.allow && s.everyone })
}

// Public carries out a request without a signature, for a door outside: what the policy and the
// lists of the VM's bucket allow to everyone, else ErrNotPublic. As in S3, a key that is missing
// shows so to those alone who may list the bucket. Like Serve it returns an error only if nothing
// was answered yet; a header that was set before must not be sent with ErrNotPublic.
func (h *Handler) Public(w http.ResponseWriter, r *http.Request, who Caller, t Target) error {
	who.Anonymous, who.Inside, who.Host, who.Chain = true, false, false, nil
	c, err := h.newCall(w, r, who, t)
	if err != nil || c.r.Header.Get("X-Amz-Copy-Source") != "" { // a copy would show what other buckets have
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
	if err := cmp.Or(c.refuse(), CheckOverrides(r)); err != nil {
		return err
	}
	err = to.verb(c)
	if errors.Is(err, store.ErrQuota) { // without the figures
		return Errorf(http.StatusInsufficientStorage, "QuotaExceeded", "Nothing was stored: there is no space left in the bucket.")
	}
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

// Limits of a list for a stranger, or for a browser.
const (
	maxStrangersPage = 256 << 10 // bytes, and the last entry
	maxStrangersList = 100       // of versions or uploads
)

// rowBytes is how long the entry of a name is in a list, in XML or in a page, at most.
func rowBytes(name string) int {
	return 200 + len(html.EscapeString(name)) + len(url.QueryEscape(name))
}

// Page lists a part of a bucket for a person: what is below a prefix, by folders, behind after.
// Like Public it returns ErrNotPublic for all that the caller may not see.
func (h *Handler) Page(r *http.Request, who Caller, bucket, prefix, after string) (store.Page, error) {
	query := url.Values{"delimiter": {"/"}, "max-keys": {strconv.Itoa(maxPage)}} // what the same list of S3 has
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	c := &call{Handler: h, Caller: who, Target: Target{Bucket: bucket}, r: r, query: query}
	if err := c.authorize(route{http.MethodGet, "", nil}); err != nil {
		return store.Page{}, notPublic(err)
	}
	return h.Store.List(r.Context(), store.Query{VM: who.VM.ID, Bucket: bucket, Prefix: prefix, Delimiter: "/", After: after, Max: maxPage, Most: maxStrangersPage, Weigh: rowBytes})
}

// Upload stores the file of a form below a prefix, for a person who may write to the bucket. Of the
// form's other fields none counts. It returns the key.
func (h *Handler) Upload(w http.ResponseWriter, r *http.Request, who Caller, bucket, prefix string, form *Form) (string, error) {
	if form.name == "" {
		return "", invalidArgument("Choose a file first.")
	}
	t := Target{bucket, prefix + form.name}
	if err := checkKey(t.Key); err != nil {
		return "", err
	}
	r = r.Clone(r.Context())
	r.Header = senderOf(r.Header)
	if kind := form.file.Header.Get("Content-Type"); kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	c := &call{Handler: h, Caller: who, Target: t, w: w, r: r, query: url.Values{}}
	if err := c.authorize(route{}); err != nil {
		return "", err
	}
	meta, err := c.meta()
	if err != nil {
		return "", err
	}
	body := &payload{src: &atMost{form.file, maxPutBytes}, size: -1}
	if err := body.announced(c.r.Header, algorithm{}); err != nil {
		return "", err
	}
	_, err = c.putSealed(store.Write{Body: body, Size: -1, Meta: meta})
	return t.Key, err
}

// senderOf is what the headers of a request have about its sender, for the conditions of policies.
// All others are about what it asks for.
func senderOf(h http.Header) http.Header {
	kept := http.Header{}
	for _, name := range []string{"Referer", "User-Agent"} {
		if values, ok := h[name]; ok {
			kept[name] = values
		}
	}
	return kept
}

// atMost fails when a body goes above its limit.
type atMost struct {
	src  io.Reader
	left int64
}

// Read implements io.Reader.
func (a *atMost) Read(p []byte) (int, error) {
	n, err := a.src.Read(p)
	if a.left -= int64(n); a.left < 0 {
		return 0, badRequest("EntityTooLarge", "The file is larger than 5 GiB.")
	}
	return n, err
}
