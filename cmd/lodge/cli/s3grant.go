package cli

import (
	"context"
	"io"
	"strings"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
)

type s3GrantCmd struct {
	Path   string `arg:"" help:"VM/BUCKET." predictor:"vm"`
	Access string `arg:"" help:"read (list and read), write (also write and delete), or none." enum:"read,write,none"`
	To     string `help:"The other VM." placeholder:"VM" predictor:"vm" required:""`
}

// Help is the text below the usage.
func (*s3GrantCmd) Help() string {
	return "Inside the other VM the bucket photos of blog is blog_photos: aws s3 ls s3://blog_photos. What it writes counts for the quota of blog. " +
		"A grant ends at once when it is taken back, and with either VM."
}

// Run sets what another VM may do with a bucket.
func (c *s3GrantCmd) Run(ctx context.Context, a *app) error {
	name, bucket, _ := strings.Cut(c.Path, "/")
	if bucket == "" || strings.Contains(bucket, "/") {
		return gateway.Invalid("a grant is of a bucket, not of %.100q", c.Path).WithHint("An example: lodge s3 grant blog/photos read --to shop")
	}
	in := control.BucketGrantRequest{Bucket: bucket, To: c.To, Access: gateway.BucketAccess(strings.TrimPrefix(c.Access, "none"))}
	all, err := a.client.GrantBucket(ctx, name, in)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) { describeGrants(w, all) })
}

type s3GrantsCmd struct{ named }

// Run lists grants.
func (c *s3GrantsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.BucketGrants(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) { describeGrants(w, all) })
}

func describeGrants(w io.Writer, all []api.BucketGrant) {
	if len(all) == 0 {
		row(w, "No grants. Make one: lodge s3 grant VM/BUCKET read --to VM")
		return
	}
	row(w, "BUCKET", "TO", "MAY", "NAME THERE")
	for _, g := range all {
		row(w, g.VM+"/"+g.Bucket, g.To, g.Access, g.Name)
	}
}
