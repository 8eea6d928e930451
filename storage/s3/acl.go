package s3

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"lodge/storage/store"
)

// Access control lists. A list is kept as a text, such as "owner:FULL_CONTROL,all:READ"; an empty one is
// that of the owner alone. In a bucket whose ownership is enforced (the default) only that one is possible.

const (
	aclConfig     = "acl"
	granteeOwner  = "owner"
	granteeAll    = "all"           // everyone
	granteeUsers  = "authenticated" // there are none beside the owner
	groupURIs     = "http://acs.amazonaws.com/groups/global/"
	maxGrants     = 100
	onlyTheOwner  = "owner:FULL_CONTROL"
	xsiNamespace  = "http://www.w3.org/2001/XMLSchema-instance"
	userType      = "CanonicalUser"
	groupType     = "Group"
	headerOfGrant = "X-Amz-Grant-"
)

// canned returns the list of a canned name.
func canned(name string) (list string, ok bool) {
	switch name {
	case "private", "bucket-owner-full-control", "bucket-owner-read":
		return onlyTheOwner, true
	case "public-read":
		return onlyTheOwner + ",all:READ", true
	case "public-read-write":
		return onlyTheOwner + ",all:READ,all:WRITE", true
	case "authenticated-read":
		return onlyTheOwner + ",authenticated:READ", true
	}
	return "", false
}

// grants reports whether a list gives a permission.
func grants(list, grantee, permission string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(g string) bool {
		return g == grantee+":"+permission || g == grantee+":FULL_CONTROL"
	})
}

func errNoACL() error {
	return badRequest("AccessControlListNotSupported", "The bucket does not allow ACLs: its ownership is BucketOwnerEnforced. Set it to another one, or use a bucket policy.")
}

type granteeXML struct {
	Type        string `xml:"xsi:type,attr"`
	XSI         string `xml:"xmlns:xsi,attr"`
	ID          string `xml:",omitempty"`
	DisplayName string `xml:",omitempty"`
	URI         string `xml:",omitempty"`
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

// getACL answers GET of the list of an object, or of a bucket.
func getACL(c *call) error {
	b, err := c.bucket()
	if err != nil {
		return err
	}
	list := string(b.Config[aclConfig])
	if c.Key != "" {
		o, err := c.Store.Head(c.storeKey(), c.version())
		if err != nil {
			return c.missing(o, err)
		}
		c.setVersion(o)
		list = o.ACL
	}
	if list == "" || ownershipOf(b) == enforced {
		list = onlyTheOwner
	}
	who := c.owner()
	out := aclXML{Owner: who}
	for grant := range strings.SplitSeq(list, ",") {
		grantee, permission, _ := strings.Cut(grant, ":")
		g := granteeXML{Type: groupType, XSI: xsiNamespace}
		switch grantee {
		case granteeOwner:
			if g.Type = userType; who != nil {
				g.ID, g.DisplayName = who.ID, who.DisplayName
			}
		case granteeAll:
			g.URI = groupURIs + "AllUsers"
		default:
			g.URI = groupURIs + "AuthenticatedUsers"
		}
		out.Grants = append(out.Grants, grantXML{g, permission})
	}
	return c.reply(out)
}

// putACL sets the list of an object or a bucket: that of a header, or of the body.
func putACL(c *call) error {
	text, err := c.document(maxDocument, func(r io.Reader) ([]byte, error) { return readXML(r, maxItems) })
	if err != nil {
		return err
	}
	b, err := c.bucket()
	if err != nil {
		return err
	}
	list, err := c.askedACL()
	switch {
	case err != nil:
		return err
	case list != "" && len(text) > 0:
		return badRequest("UnexpectedContent", "This request does not support content")
	case list == "" && len(text) == 0:
		return badRequest("MissingSecurityHeader", "Your request was missing a required header: x-amz-acl")
	case list == "":
		if list, err = c.parseACL(text); err != nil {
			return err
		}
	}
	if err := checkACL(b, list); err != nil {
		return err
	}
	if c.Key == "" {
		return c.configure(aclConfig, []byte(list))
	}
	o, err := c.Store.Head(c.storeKey(), c.version())
	if err != nil {
		return c.missing(o, err)
	}
	c.setVersion(o)
	_, err = c.Store.Update(c.storeKey(), o.Version, func(m *store.Meta) error {
		m.ACL = list
		return nil
	})
	return err
}

// checkACL refuses a list that the bucket's settings do not permit.
func checkACL(b store.Bucket, list string) error {
	if list == "" || list == onlyTheOwner {
		return nil
	}
	if ownershipOf(b) == enforced {
		return errNoACL()
	}
	if accessBlockOf(b).BlockPublicAcls && (strings.Contains(list, granteeAll+":") || strings.Contains(list, granteeUsers+":")) {
		return denied("The list is public, and the bucket's BlockPublicAcls setting prevents that.")
	}
	return nil
}

// aclOf is the list of a write.
func (c *call) aclOf() (string, error) {
	list, err := c.askedACL()
	if err != nil || list == "" || list == onlyTheOwner {
		return "", err
	}
	b, err := c.bucket()
	if err != nil && !errors.Is(err, store.ErrNoBucket) {
		return "", err
	}
	return list, checkACL(b, list)
}

// askedACL is the list that the headers ask for; "" if they ask for none.
func (c *call) askedACL() (string, error) {
	name := c.r.Header.Get("X-Amz-Acl")
	list, ok := canned(name)
	if name != "" && !ok {
		return "", invalidArgument("The canned ACL %.40q is not possible here.", name)
	}
	var given []string
	for _, permission := range permissions() {
		for part := range strings.SplitSeq(c.r.Header.Get(headerOfGrant+strings.ReplaceAll(permission, "_", "-")), ",") {
			kind, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if kind == "" {
				continue
			}
			grantee, err := c.grantee(strings.Trim(value, `"`), kind)
			if err != nil {
				return "", err
			}
			given = append(given, grantee+":"+permission)
		}
	}
	if len(given) > 0 && name != "" {
		return "", invalidRequest("Specifying both Canned ACLs and Header Grants is not allowed")
	}
	if len(given) > 0 {
		return strings.Join(given, ","), nil
	}
	return list, nil
}

func permissions() []string {
	return []string{"FULL_CONTROL", "READ", "READ_ACP", "WRITE", "WRITE_ACP"}
}

// grantee is the name in a list for one of a request: an id, the URI of a group, or a mail address.
func (c *call) grantee(value, kind string) (string, error) {
	switch {
	case kind == "id" && value == c.VM.ID.String():
		return granteeOwner, nil
	case kind == "uri" && value == groupURIs+"AllUsers":
		return granteeAll, nil
	case kind == "uri" && value == groupURIs+"AuthenticatedUsers":
		return granteeUsers, nil
	case kind == "emailAddress":
		return "", badRequest("UnresolvableGrantByEmailAddress", "The e-mail address you provided does not match any account on record.")
	case kind == "uri":
		return "", invalidArgument("Invalid group uri")
	}
	return "", invalidArgument("Invalid id: the only one is that of the VM (%s).", c.VM.ID)
}

// parseACL reads the list in a body.
func (c *call) parseACL(text []byte) (string, error) {
	var list struct {
		XMLName xml.Name `xml:"AccessControlPolicy"`
		Owner   struct{ ID string }
		Grants  []struct {
			Grantee struct {
				ID    string `xml:"ID"`
				URI   string `xml:"URI"`
				Email string `xml:"EmailAddress"`
			}
			Permission string
		} `xml:"AccessControlList>Grant"`
	}
	malformed := badRequest("MalformedACLError", "The XML you provided was not well-formed or did not validate against our published schema")
	if xml.Unmarshal(text, &list) != nil || len(list.Grants) > maxGrants {
		return "", malformed
	}
	if list.Owner.ID != "" && list.Owner.ID != c.VM.ID.String() {
		return "", denied("The owner of the list is another one than the VM (%s).", c.VM.ID)
	}
	var given []string
	for _, g := range list.Grants {
		kind, value := "id", g.Grantee.ID
		switch {
		case g.Grantee.URI != "":
			kind, value = "uri", g.Grantee.URI
		case g.Grantee.Email != "":
			kind, value = "emailAddress", g.Grantee.Email
		}
		grantee, err := c.grantee(value, kind)
		if err != nil {
			return "", err
		}
		if !slices.Contains(permissions(), g.Permission) {
			return "", malformed
		}
		given = append(given, grantee+":"+g.Permission)
	}
	if len(given) == 0 {
		return onlyTheOwner, nil
	}
	return strings.Join(given, ","), nil
}

// refuseGrant refuses the headers of lists where they mean nothing.
func (c *call) refuseGrant(name string) error {
	known := slices.ContainsFunc(permissions(), func(p string) bool {
		return strings.EqualFold(name, headerOfGrant+strings.ReplaceAll(p, "_", "-"))
	})
	table := bucketRoutes()
	if c.Key != "" {
		table = objectRoutes()
	}
	writes := c.r.Method == http.MethodPut || c.r.Method == http.MethodPost
	if !writes || c.sub(table) && !c.query.Has("acl") && !c.query.Has("uploads") || strings.HasPrefix(name, headerOfGrant) && !known {
		return invalidArgument("The header %s has no effect in this request.", strings.ToLower(name))
	}
	return nil
}
