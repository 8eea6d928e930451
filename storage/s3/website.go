package s3

import (
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"lodge/storage/store"
)

// The website of a bucket: an index document, an error document, and redirects by rules.

const (
	websiteConfig   = "website"
	maxRoutingRules = 50
)

type websiteXML struct {
	XMLName xml.Name      `xml:"WebsiteConfiguration"`
	All     *redirectXML  `xml:"RedirectAllRequestsTo"`
	Index   *indexXML     `xml:"IndexDocument"`
	Error   *errorDocXML  `xml:"ErrorDocument"`
	Rules   *[]routingXML `xml:"RoutingRules>RoutingRule"`
}

type (
	indexXML    struct{ Suffix string }
	errorDocXML struct{ Key string }
)

type routingXML struct {
	Condition *routingConditionXML
	Redirect  *redirectXML
}

type routingConditionXML struct {
	KeyPrefixEquals             string
	HTTPErrorCodeReturnedEquals int `xml:"HttpErrorCodeReturnedEquals"`
}

type redirectXML struct {
	Protocol             string
	HostName             string
	ReplaceKeyPrefixWith *string
	ReplaceKeyWith       *string
	HTTPRedirectCode     int `xml:"HttpRedirectCode"`
}

func checkWebsite(text []byte) error {
	var conf websiteXML
	if xml.Unmarshal(text, &conf) != nil {
		return errXML("The XML is no WebsiteConfiguration.")
	}
	if conf.All != nil {
		if conf.Index != nil || conf.Error != nil || conf.Rules != nil {
			return errXML("RedirectAllRequestsTo cannot be provided in conjunction with other elements.")
		}
		return conf.All.check(true)
	}
	switch {
	case conf.Index == nil:
		return invalidArgument("A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty")
	case conf.Index.Suffix == "" || strings.Contains(conf.Index.Suffix, "/"):
		return invalidArgument("The IndexDocument Suffix is not well formed")
	case conf.Error != nil && checkKey(conf.Error.Key) != nil:
		return invalidArgument("The ErrorDocument Key is not well formed")
	case conf.Rules == nil:
		return nil
	case len(*conf.Rules) == 0 || len(*conf.Rules) > maxRoutingRules:
		return invalidRequest("A website has 1 to %d routing rules, or none at all.", maxRoutingRules)
	}
	for _, r := range *conf.Rules {
		if r.Redirect == nil {
			return errXML("A RoutingRule needs a Redirect.")
		}
		if k := r.Condition; k != nil && k.HTTPErrorCodeReturnedEquals != 0 && (k.HTTPErrorCodeReturnedEquals < 400 || k.HTTPErrorCodeReturnedEquals > 599) {
			return invalidArgument("The provided HTTP error code (%d) is not valid. Valid codes are 4XX or 5XX.", k.HTTPErrorCodeReturnedEquals)
		}
		if err := r.Redirect.check(false); err != nil {
			return err
		}
	}
	return nil
}

func (d *redirectXML) check(all bool) error {
	switch {
	case d.Protocol != "" && d.Protocol != "http" && d.Protocol != "https":
		return invalidRequest("Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically.")
	case all && d.HostName == "", d.HostName != "" && !isHost(d.HostName):
		return errXML("The HostName of a redirect is a name, with a port if need be.")
	case d.ReplaceKeyPrefixWith != nil && d.ReplaceKeyWith != nil:
		return errXML("You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
	case d.HTTPRedirectCode != 0 && (d.HTTPRedirectCode < 301 || d.HTTPRedirectCode > 399 || d.HTTPRedirectCode == 304):
		return invalidRequest("The provided HTTP redirect code (%d) is not valid. Valid codes are 3XX except 300.", d.HTTPRedirectCode)
	case d.Protocol == "" && d.HostName == "" && d.ReplaceKeyPrefixWith == nil && d.ReplaceKeyWith == nil && d.HTTPRedirectCode == 0:
		return errXML("A redirect changes something.")
	}
	return nil
}

// isHost reports whether a text is the name of a host, with or without a port.
func isHost(text string) bool {
	u, err := url.Parse("http://" + text)
	return err == nil && u.Host == text && u.Hostname() != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// Website answers a request for a page of a bucket's website, for a door outside. who is the VM
// that has the bucket, and who asks; t.Key is the path, "" for the root. What is not public is
// AccessDenied for who is anonymous. A bucket without a website is NoSuchWebsiteConfiguration. Like
// Serve it returns an error only if nothing was answered yet.
func (h *Handler) Website(w http.ResponseWriter, r *http.Request, who Caller, t Target) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "A website has GET and HEAD alone.")
	}
	who.Inside, who.Chain = false, nil
	r = r.Clone(r.Context())
	r.URL.RawQuery = "" // parameters are the pages' own
	c := &call{Handler: h, Caller: who, Target: t, w: w, r: r, query: url.Values{}}
	b, err := c.bucket()
	if err != nil {
		return err
	}
	var site websiteXML
	text, ok := b.Config[websiteConfig]
	if !ok || xml.Unmarshal(text, &site) != nil {
		return Errorf(http.StatusNotFound, "NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration")
	}
	if site.All != nil {
		c.redirect(site.All, t.Key, "")
		return nil
	}
	return c.sitePage(&site)
}

// sitePage answers with a page: a redirect by its key, the object, a redirect by the error, or the error document.
func (c *call) sitePage(site *websiteXML) error {
	asked := c.Key
	if rule := site.rule(asked, 0); rule != nil {
		c.redirect(rule.Redirect, asked, rule.prefix())
		return nil
	}
	if c.Key == "" || strings.HasSuffix(c.Key, "/") {
		c.Key += site.Index.Suffix
	}
	err := c.object()
	if errors.Is(err, store.ErrNoKey) && !strings.HasSuffix(asked, "/") && asked != "" {
		index := *c
		index.Key = asked + "/" + site.Index.Suffix
		if _, found := c.Store.Head(index.storeKey(), ""); found == nil && index.authorize(route{http.MethodGet, "", nil}) == nil {
			c.w.Header().Set("Location", localPath(asked+"/"))
			c.w.WriteHeader(http.StatusFound)
			return nil
		}
	}
	if err == nil {
		return nil
	}
	known, _ := AsError(err)
	if rule := site.rule(asked, known.Status); rule != nil {
		c.redirect(rule.Redirect, asked, rule.prefix())
		return nil
	}
	if site.Error != nil && known.Status < http.StatusInternalServerError {
		c.Key = site.Error.Key
		c.w = &withStatus{c.w, known.Status}
		c.r.Header = senderOf(c.r.Header) // its conditions and ranges are about the page
		if c.object() == nil {
			return nil
		}
	}
	return err
}

// localPath is the path of a key in a URL: never "//", which would be another host.
func localPath(key string) string {
	rest := strings.TrimLeft(key, "/")
	return "/" + strings.Repeat("%2F", len(key)-len(rest)) + (&url.URL{Path: "/" + rest}).EscapedPath()[1:]
}

// object answers with the object of the key, or its redirect.
func (c *call) object() error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if err := c.authorize(route{http.MethodGet, "", nil}); err != nil {
		return err
	}
	o, err := c.Store.Head(c.storeKey(), "")
	if errors.Is(err, store.ErrDeleted) {
		return store.ErrNoKey
	}
	if err != nil {
		return err
	}
	if to := o.Header["x-amz-website-redirect-location"]; to != "" {
		c.w.Header().Set("Location", to)
		c.w.WriteHeader(http.StatusMovedPermanently)
		return nil
	}
	if c.r.Method == http.MethodHead {
		return headObject(c)
	}
	return getObject(c)
}

// withStatus answers 200 as another status.
type withStatus struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *withStatus) WriteHeader(int) { w.ResponseWriter.WriteHeader(w.status) }

// rule is the first whose condition holds for a key and a status, which is 0 before the key is looked up.
func (x *websiteXML) rule(key string, status int) *routingXML {
	if x.Rules == nil {
		return nil
	}
	for i, r := range *x.Rules {
		ofStatus := 0
		if r.Condition != nil {
			ofStatus = r.Condition.HTTPErrorCodeReturnedEquals
		}
		if ofStatus == status && strings.HasPrefix(key, r.prefix()) {
			return &(*x.Rules)[i]
		}
	}
	return nil
}

func (r *routingXML) prefix() string {
	if r.Condition == nil {
		return ""
	}
	return r.Condition.KeyPrefixEquals
}

// redirect sends the client to another place for a key, of which prefix is what a rule replaces.
func (c *call) redirect(to *redirectXML, key, prefix string) {
	u := url.URL{Scheme: to.Protocol, Host: to.HostName}
	switch {
	case to.ReplaceKeyWith != nil:
		key = *to.ReplaceKeyWith
	case to.ReplaceKeyPrefixWith != nil:
		key = *to.ReplaceKeyPrefixWith + strings.TrimPrefix(key, prefix)
	}
	u.Path = "/" + strings.TrimLeft(key, "/") // "//" would be another host
	if u.Host == "" && u.Scheme != "" {
		u.Host = c.r.Host
	}
	if u.Host != "" && u.Scheme == "" {
		if u.Scheme = "http"; c.r.TLS != nil {
			u.Scheme = "https"
		}
	}
	status := to.HTTPRedirectCode
	if status == 0 {
		status = http.StatusMovedPermanently
	}
	c.w.Header().Set("Location", u.String())
	c.w.WriteHeader(status)
}
