package s3

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"

	"lodge/storage/store"
)

const (
	xmlns = "http://s3.amazonaws.com/doc/2006-03-01/" // of S3's answers

	// region is the one that answers name: there is one, and requests may sign for any.
	region = "us-east-1"
)

// createBucket answers CreateBucket. Every region that the client names is accepted.
func createBucket(c *call) error {
	if c.r.ContentLength != 0 {
		var conf struct {
			Tags     *struct{} `xml:"Tags"`
			Bucket   *struct{} `xml:"Bucket"`
			Location *struct{} `xml:"Location"`
		}
		if err := c.decode(&conf, maxDocument, maxItems); err != nil {
			return err
		}
		if conf.Tags != nil || conf.Bucket != nil || conf.Location != nil {
			return notImplemented("Tags at creation, and directory buckets, are not implemented. Tag the bucket afterwards.")
		}
	}
	ownership := c.r.Header.Get("X-Amz-Object-Ownership")
	if ownership != "" && !slices.Contains(ownerships(), ownership) {
		return invalidArgument("Invalid x-amz-object-ownership header: %.40q.", ownership)
	}
	list, err := c.createdACL(ownership)
	if err != nil {
		return err
	}
	lock := strings.EqualFold(c.r.Header.Get("X-Amz-Bucket-Object-Lock-Enabled"), "true")
	if _, err := c.Store.CreateBucket(c.VM.ID, c.Bucket, lock); err != nil {
		return err
	}
	if ownership != "" {
		text, err := xml.Marshal(ownershipXML{Xmlns: xmlns, Rules: []ownershipRule{{ownership}}})
		if err != nil {
			return err
		}
		if err := c.configure("ownershipControls", text); err != nil {
			return err
		}
	}
	if list != "" {
		if err := c.configure(aclConfig, []byte(list)); err != nil {
			return err
		}
	}
	c.set("Location", "/"+c.Bucket)
	return nil
}

// createdACL is the list of a bucket that is made with an ownership.
func (c *call) createdACL(ownership string) (string, error) {
	list, err := c.askedACL()
	if err != nil || list == "" || list == onlyTheOwner {
		return "", err
	}
	if ownership == enforced {
		return "", badRequest("InvalidBucketAclWithObjectOwnership", "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting")
	}
	if ownership == "" {
		return "", errNoACL()
	}
	return list, nil
}

// ownerships differ in whether there are lists: everything in a bucket is its VM's with each.
func ownerships() []string {
	return []string{"BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"}
}

type ownershipRule struct{ ObjectOwnership string }

type ownershipXML struct {
	XMLName xml.Name        `xml:"OwnershipControls"`
	Xmlns   string          `xml:"xmlns,attr"`
	Rules   []ownershipRule `xml:"Rule"`
}

// headBucket answers HeadBucket.
func headBucket(c *call) error {
	if _, err := c.bucket(); err != nil {
		return err
	}
	c.set("x-amz-bucket-region", region)
	c.w.Header().Set("Content-Type", "application/xml")
	return nil
}

func deleteBucket(c *call) error {
	if err := c.Store.DeleteBucket(c.VM.ID, c.Bucket); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// bucket is the bucket that the request is about.
func (c *call) bucket() (store.Bucket, error) { return c.Store.Bucket(c.VM.ID, c.Bucket) }

type locationXML struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LocationConstraint"`
}

// getLocation answers GetBucketLocation: us-east-1, which is empty there.
func getLocation(c *call) error {
	if _, err := c.bucket(); err != nil {
		return err
	}
	return c.reply(locationXML{})
}

type versioningXML struct {
	XMLName   xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ VersioningConfiguration"`
	Status    string   `xml:",omitempty"`
	MFADelete string   `xml:"MfaDelete,omitempty"`
}

func getVersioning(c *call) error {
	b, err := c.bucket()
	if err != nil {
		return err
	}
	return c.reply(versioningXML{Status: string(b.Versioning)})
}

func putVersioning(c *call) error {
	var conf struct {
		Status    string
		MFADelete string `xml:"MfaDelete"`
	}
	if err := c.decode(&conf, maxDocument, maxItems); err != nil {
		return err
	}
	status := store.Versioning(conf.Status)
	switch {
	case conf.MFADelete == "Enabled":
		return notImplemented("MFA delete is not implemented.")
	case status != store.Enabled && status != store.Suspended:
		return Errorf(http.StatusBadRequest, "IllegalVersioningConfigurationException", "The versioning status is Enabled or Suspended.")
	}
	return c.Store.ConfigureBucket(c.VM.ID, c.Bucket, func(b *store.Bucket) error {
		if b.Lock && status == store.Suspended {
			return Errorf(http.StatusConflict, "InvalidBucketState", "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.")
		}
		b.Versioning = status
		return nil
	})
}

// fixed answers GET of a setting that a bucket always has, and cannot change.
func fixed(root, text string) verb {
	return func(c *call) error {
		if _, err := c.bucket(); err != nil {
			return err
		}
		return c.reply(struct {
			XMLName xml.Name
			Text    string `xml:",innerxml"`
		}{xml.Name{Space: xmlns, Local: root}, text})
	}
}
