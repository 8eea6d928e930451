package api

import (
	"log/slog"
	"net/http"
	"net/url"

	"lodge/gateway"
)

// checkBucketName refuses what is no name of a bucket.
func checkBucketName(bucket string) error {
	if !bucketName.MatchString(bucket) {
		return gateway.Invalid("not a bucket's name: %.100q", bucket).
			WithHint("It is 3 to 63 lower-case letters, digits, dots and dashes, with a letter or a digit at both ends.")
	}
	return nil
}

// logged is what a share is about, in the log.
func (to Sharing) logged() slog.Attr {
	if to.Bucket != "" {
		return slog.String("bucket", to.Bucket)
	}
	return slog.Int("port", int(to.Port))
}

// urlOf is where people open a bucket or, if that is "", a port.
func (s Session) urlOf(m gateway.VM, bucket string, port uint16) string {
	if bucket == "" {
		return s.api.Web.URL(m, port)
	}
	u, err := url.Parse(s.api.S3URL)
	if err != nil { // it is made of the configuration's domain
		return ""
	}
	u.Host, u.Path = bucket+"."+m.Name+"."+u.Host, "/"
	return u.String()
}

// bucketAccess is who may list and read the buckets that are shared, whether the VM runs or not.
func (s Session) bucketAccess(m gateway.VM) []PortAccess {
	all := []PortAccess{} // an empty list is [] in JSON
	for _, share := range m.S3.Shares {
		a := PortAccess{
			Share: s.showShare(share.Bucket, share.Share), URL: s.urlOf(m, share.Bucket, 0), Domains: []string{}, Bypass: []string{},
			Stranger: http.StatusUnauthorized, Sees: "a page that says to log in",
		}
		if share.Visibility == gateway.Public {
			a.Stranger, a.Sees = 0, "the objects"
		}
		all = append(all, a)
	}
	return all
}
