package s3

import (
	"encoding/xml"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzWebsite: a configuration that is accepted leads nowhere but to this host or to the one it names.
func FuzzWebsite(f *testing.F) {
	f.Add("<WebsiteConfiguration><RedirectAllRequestsTo><HostName>a</HostName></RedirectAllRequestsTo></WebsiteConfiguration>", "k")
	f.Add("<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Redirect><ReplaceKeyWith>//b</ReplaceKeyWith></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>", "k")
	f.Fuzz(func(t *testing.T, text, key string) {
		var site websiteXML
		if checkWebsite([]byte(text)) != nil || xml.Unmarshal([]byte(text), &site) != nil {
			return
		}
		to := site.All
		if rule := site.rule(key, 0); rule != nil {
			to = rule.Redirect
		}
		if to == nil {
			return
		}
		w := httptest.NewRecorder()
		c := &call{w: w, r: httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)}
		c.redirect(to, key, "")
		got, err := url.Parse(w.Header().Get("Location"))
		if err != nil || got.Host != "" && got.Host != c.r.Host && !strings.EqualFold(got.Host, to.HostName) {
			t.Errorf("%q: %v", w.Header().Get("Location"), err)
		}
	})
}
