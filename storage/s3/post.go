package s3

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"lodge/storage/store"
)

// formFile is the file of a form. Its length is known only at its end; then the policy is asked.
type formFile struct {
	src    io.Reader
	policy *policy
	n      int64
}

// Read implements io.Reader.
func (f *formFile) Read(p []byte) (int, error) {
	n, err := f.src.Read(p)
	f.n += int64(n)
	if refused := f.policy.checkLength(f.n, errors.Is(err, io.EOF)); refused != nil {
		return 0, refused
	}
	return n, err
}

// Post stores the file of a browser's form. The signature of its policy is verified, and who is the
// VM whose key signed it.
func (h *Handler) Post(w http.ResponseWriter, r *http.Request, who Caller, t Target, form *Form) error {
	if t.Bucket == "" || t.Key != "" {
		return Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "A form is posted to a bucket.")
	}
	fields := form.Fields
	p, err := parsePolicy(fields["policy"])
	if err != nil {
		return err
	}
	fields["bucket"] = t.Bucket
	if err := p.check(fields, h.Now()); err != nil {
		return err
	}
	if t.Key, err = form.key(); err != nil {
		return err
	}
	c := &call{Handler: h, Caller: who, Target: t, w: w, r: r.Clone(r.Context()), query: url.Values{}}
	if c.r.Header, err = form.header(); err != nil {
		return err
	}
	c.cross()
	if err := c.refuse(); err != nil {
		return err
	}
	if err := c.authorize(route{}); err != nil {
		return err
	}
	meta, err := c.meta()
	if err != nil {
		return err
	}
	body := &payload{src: &formFile{src: form.file, policy: p}, size: -1}
	if err := body.announced(c.r.Header, algorithm{}); err != nil {
		return err
	}
	o, err := c.putSealed(store.Write{Body: body, Size: -1, MD5: body.md5, Meta: meta, Checksum: body.checksum, Event: store.CreatedByPost})
	if err != nil {
		return err
	}
	return c.posted(o, fields)
}

// header are the fields of the form as the headers that a PUT would have.
func (f *Form) header() (http.Header, error) {
	h := http.Header{}
	for name, value := range f.Fields {
		switch name {
		case "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token":
		case "acl":
			h.Set("X-Amz-Acl", value)
		case "tagging":
			var list tagsXML
			text, err := readXML(strings.NewReader(value), maxItems)
			if err != nil || xml.Unmarshal(text, &list) != nil {
				return nil, errXML("The field tagging is not the XML of tags.")
			}
			tags := url.Values{}
			for _, t := range list.Tags {
				tags.Add(t.Key, t.Value)
			}
			h.Set("X-Amz-Tagging", tags.Encode())
		case "content-type", "content-encoding", "content-disposition", "content-language", "content-md5", "cache-control", "expires":
			h.Set(name, value)
		default:
			if strings.HasPrefix(name, "x-amz-") {
				h.Set(name, value)
			}
		}
	}
	return h, nil
}

type postXML struct {
	XMLName  xml.Name `xml:"PostResponse"`
	Location string
	Bucket   string
	Key      string
	ETag     string
}

// posted answers as the form asks: by a redirect, or with a status.
func (c *call) posted(o store.Object, fields map[string]string) error {
	c.set("Etag", quote(o.ETag))
	c.setVersion(o)
	c.setChecksum(o.Checksum, 0)
	to := fields["success_action_redirect"]
	if to == "" {
		to = fields["redirect"]
	}
	if u, err := url.Parse(to); to != "" && err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		q := u.Query()
		q.Set("bucket", c.Bucket)
		q.Set("key", c.Key)
		q.Set("etag", quote(o.ETag))
		u.RawQuery = q.Encode()
		c.w.Header().Set("Location", u.String())
		c.w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	c.w.Header().Set("Location", c.location())
	switch status, _ := strconv.Atoi(fields["success_action_status"]); status {
	case http.StatusOK:
	case http.StatusCreated:
		text, err := xml.Marshal(postXML{Location: c.location(), Bucket: c.Bucket, Key: c.Key, ETag: quote(o.ETag)})
		if err != nil {
			return err
		}
		c.w.Header().Set("Content-Type", "application/xml")
		c.w.WriteHeader(status)
		_, _ = c.w.Write(append([]byte(xml.Header), text...)) // it is stored, whether the client reads that or not
	default: // S3 answers so to any other, too
		c.w.WriteHeader(http.StatusNoContent)
	}
	return nil
}
