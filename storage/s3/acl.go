package s3

import (
	"encoding/xml"
	"io"
	"net/http"
	"slices"
)

// privateACLs are the canned lists that grant nobody else anything, since a bucket and its objects have
// one owner.
func privateACLs() []string {
	return []string{"private", "bucket-owner-full-control", "bucket-owner-read"}
}

func errNoACL() error {
	return badRequest("AccessControlListNotSupported", "Access control lists are not implemented: buckets are the VM's alone.")
}

type granteeXML struct {
	Type        string `xml:"xsi:type,attr"`
	XSI         string `xml:"xmlns:xsi,attr"`
	ID          string
	DisplayName string
}

type aclXML struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ AccessControlPolicy"`
	Owner   *owner
	Grants  []grantXML `xml:"AccessControlList>Grant"`
}

type grantXML struct {
	Grantee    granteeXML
	Permission string
}

// getACL answers GET of an access control list: everything has one list, that of the owner alone.
func getACL(c *call) error {
	if err := c.exists(); err != nil {
		return err
	}
	who := c.owner()
	return c.reply(aclXML{Owner: who, Grants: []grantXML{{
		granteeXML{"CanonicalUser", "http://www.w3.org/2001/XMLSchema-instance", who.ID, who.DisplayName}, "FULL_CONTROL",
	}}})
}

// putACL accepts the list that everything has: setting it is no error, s3cmd does so after each copy.
// refuse has checked the headers.
func putACL(c *call) error {
	text, err := c.document(maxDocument, func(r io.Reader) ([]byte, error) { return readXML(r, maxItems) })
	if err != nil {
		return err
	}
	var list struct {
		Grantees []struct {
			ID    string `xml:"ID"`
			URI   string `xml:"URI"`
			Email string `xml:"EmailAddress"`
		} `xml:"AccessControlList>Grant>Grantee"`
	}
	if len(text) > 0 && xml.Unmarshal(text, &list) != nil {
		return badRequest("MalformedACLError", "The body is not the XML of an access control list.")
	}
	for _, g := range list.Grantees {
		if g.ID != c.VM.ID.String() || g.URI != "" || g.Email != "" {
			return errNoACL()
		}
	}
	return c.exists()
}

// exists fails if the request's bucket or object does not exist.
func (c *call) exists() error {
	if c.Key == "" {
		_, err := c.bucket()
		return err
	}
	o, err := c.Store.Head(c.storeKey(), c.version())
	if err != nil {
		return c.missing(o, err)
	}
	c.setVersion(o)
	return nil
}

// checkCanned refuses a canned list that would share anything.
func checkCanned(h http.Header) error {
	if v := h.Get("X-Amz-Acl"); v != "" && !slices.Contains(privateACLs(), v) {
		return errNoACL()
	}
	return nil
}
