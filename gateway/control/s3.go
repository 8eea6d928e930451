package control

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// S3QuotaRequest is the body that limits what a VM, or one bucket of it, may store.
type S3QuotaRequest struct {
	Bucket     string `json:"bucket,omitempty"` // without one: the VM as a whole, which an owner of the host limits
	QuotaBytes int64  `json:"quota_bytes"`      // 1 MiB to 1 PiB; 0: the host's default, for a bucket none; -1: none
}

// S3KeyRequest is the body that makes S3 credentials for outside.
type S3KeyRequest struct {
	LifeSeconds int64 `json:"life_seconds,omitempty"` // a minute to 7 days; an hour by default
}

// BucketGrantRequest is the body that sets what another VM may do with a bucket.
type BucketGrantRequest struct {
	Bucket string               `json:"bucket"`
	To     string               `json:"to"`     // the other VM
	Access gateway.BucketAccess `json:"access"` // "read", "write", or "" for nothing
}

func (s *Server) s3Routes() []route {
	const vm = "/v1/vms/{name}"
	return []route{
		{"POST", vm + "/credentials", named(s, api.Session.Credentials), nil, api.Credentials{}, "Issues S3 credentials for the VM, for the host's own socket."},
		{"POST", vm + "/s3-keys", s.newS3Key, S3KeyRequest{}, api.S3Key{}, "Makes S3 credentials for the VM's objects from outside. They are shown in this answer alone."},
		{"DELETE", vm + "/s3-keys", s.revokeS3Keys, nil, nil, "Ends all such credentials of the VM, and the presigned URLs made with them."},
		{"GET", vm + "/s3-usage", s.s3Usage, nil, api.S3Usage{}, "Returns what the VM has stored in S3, and its quotas. With `bucket`, it counts what is below `prefix` there."},
		{"GET", "/v1/s3-damage", query(s, api.Session.CheckObjects), nil, []api.S3Damage{}, "Reads all that VMs have stored in S3, and returns what is damaged: at most the first 1,000. It can take long."},
		{"GET", vm + "/s3-damage", named(s, api.Session.CheckVMObjects), nil, []api.S3Damage{}, "The same for one VM."},
		{"GET", vm + "/s3-grants", named(s, api.Session.BucketGrants), nil, []api.BucketGrant{}, "Lists what other VMs may do with the VM's buckets, and the VM with theirs."},
		{"PUT", vm + "/s3-grants", asked(s, grantBucket), BucketGrantRequest{}, []api.BucketGrant{}, "Sets what another VM may do with a bucket. What is under way by a grant ends with it."},
		{"PUT", vm + "/s3-quota", asked(s, setS3Quota), S3QuotaRequest{}, api.S3Usage{}, "Limits what the VM, or one bucket of it, may store. Writes obey it at once; nothing is removed."},
	}
}

func (s *Server) s3Usage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	u, err := s.as(r).S3Usage(r.Context(), r.PathValue("name"), q.Get("bucket"), q.Get("prefix"))
	return answerOr(w, u, err)
}

func (s *Server) newS3Key(w http.ResponseWriter, r *http.Request) error {
	var in S3KeyRequest
	if err := decode(w, r, maxBodyBytes, &in); err != nil {
		return err
	}
	life, err := lifeOf(in.LifeSeconds)
	if err != nil {
		return err
	}
	made, err := s.as(r).NewS3Key(r.Context(), r.PathValue("name"), life)
	return answerOr(w, made, err)
}

func (s *Server) revokeS3Keys(w http.ResponseWriter, r *http.Request) error {
	return noContentOr(w, s.as(r).RevokeS3Keys(r.Context(), r.PathValue("name")))
}

func setS3Quota(s api.Session, ctx context.Context, name string, in S3QuotaRequest) (api.S3Usage, error) { //nolint:revive // the order of method expressions
	return s.SetS3Quota(ctx, name, in.Bucket, in.QuotaBytes)
}

func grantBucket(s api.Session, ctx context.Context, name string, in BucketGrantRequest) ([]api.BucketGrant, error) { //nolint:revive // as above
	return s.GrantBucket(ctx, name, in.Bucket, in.To, in.Access)
}

// S3Damage reads all that a VM, or for the empty name that all VMs have stored, and returns what is
// damaged.
func (c *Client) S3Damage(ctx context.Context, name string) ([]api.S3Damage, error) {
	var all []api.S3Damage
	if name == "" {
		return all, c.call(ctx, http.MethodGet, "/v1/s3-damage", nil, &all)
	}
	return all, c.onVM(ctx, http.MethodGet, name, "/s3-damage", nil, &all)
}

// GrantBucket sets what another VM may do with a bucket.
func (c *Client) GrantBucket(ctx context.Context, name string, in BucketGrantRequest) ([]api.BucketGrant, error) {
	var all []api.BucketGrant
	return all, c.onVM(ctx, http.MethodPut, name, "/s3-grants", in, &all)
}

// BucketGrants lists the grants of a VM's buckets, and those to it.
func (c *Client) BucketGrants(ctx context.Context, name string) ([]api.BucketGrant, error) {
	var all []api.BucketGrant
	return all, c.onVM(ctx, http.MethodGet, name, "/s3-grants", nil, &all)
}

// S3Usage returns what a VM has stored; with a bucket, what is below a prefix there.
func (c *Client) S3Usage(ctx context.Context, name, bucket, prefix string) (api.S3Usage, error) {
	var u api.S3Usage
	q := url.Values{"bucket": {bucket}, "prefix": {prefix}}
	err := c.onVM(ctx, http.MethodGet, name, "/s3-usage?"+q.Encode(), nil, &u)
	return u, err
}

// SetS3Quota limits what a VM or, with one, a bucket of it may store.
func (c *Client) SetS3Quota(ctx context.Context, name, bucket string, bytes int64) (api.S3Usage, error) {
	var u api.S3Usage
	err := c.onVM(ctx, http.MethodPut, name, "/s3-quota", S3QuotaRequest{bucket, bytes}, &u)
	return u, err
}

// NewS3Key makes S3 credentials for a VM's objects from outside.
func (c *Client) NewS3Key(ctx context.Context, name string, life time.Duration) (api.S3Key, error) {
	var made api.S3Key
	err := c.onVM(ctx, http.MethodPost, name, "/s3-keys", S3KeyRequest{int64(life / time.Second)}, &made)
	return made, err
}

// RevokeS3Keys ends all such credentials of a VM.
func (c *Client) RevokeS3Keys(ctx context.Context, name string) error {
	return c.onVM(ctx, http.MethodDelete, name, "/s3-keys", nil, nil)
}

// Credentials issues S3 credentials for a VM.
func (c *Client) Credentials(ctx context.Context, name string) (api.Credentials, error) {
	var credentials api.Credentials
	err := c.onVM(ctx, http.MethodPost, name, "/credentials", nil, &credentials)
	return credentials, err
}
