package https_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
	"lodge/https/login/oidc"
	"lodge/https/login/oidc/oidctest"
	"lodge/https/names"
)

// eyes are those of a person before a browser.
type eyes struct {
	t   *testing.T
	ctx context.Context
}

// do does steps, and then waits until the page has a text.
func (e eyes) do(shot, want string, steps ...chromedp.Action[chromedp.Void]) {
	e.t.Helper()
	limited, cancel := context.WithTimeout(e.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(limited, steps...); err != nil {
		shoot(e.ctx, e.t, "failed-"+shot)
		e.t.Fatalf("%s: %v", shot, err)
	}
	text := ""
	gatewaytest.WaitFor(e.t, shot+": "+want, func() bool {
		var err error
		text, err = chromedp.Run(e.ctx, chromedp.Evaluate[string](`document.body?.innerText ?? ""`))
		return err == nil && strings.Contains(text, want)
	})
	shoot(e.ctx, e.t, shot)
}

func click(what string) chromedp.Action[chromedp.Void] { return chromedp.Click(chromedp.CSS(what)) }

// TestWaysInWithABrowser: a one-time link first, then a passkey and a provider, each from a VM's page
// back to that page, in a phone's width.
func TestWaysInWithABrowser(t *testing.T) {
	t.Parallel()
	var provider *oidctest.Provider
	s := newSite(t, func(c *https.Config) {
		provider = oidctest.Start(t, names.Origin(c.Domain, c.Port)+oidc.CallbackPath("zitadel"))
		c.LoginProviders = []oidc.Provider{{Name: "zitadel", Issuer: provider.Issuer, ClientID: provider.ClientID, Secret: provider.Secret}}
	})
	blog := s.vm("blog")
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<title>blog</title><h1>the app for " + r.Header.Get("X-Lodge-User") + " at " + r.URL.Path + "</h1>"))
	}))
	ctx := chromium(t, s)
	device(ctx, t)
	gatewaytest.Must(t, chromedp.Do(ctx, chromedp.EmulateViewport(360, 640)))
	see := eyes{t, ctx}
	link, err := s.server.LoginURL(t.Context(), gateway.ID{}, s.people.Owner().ID)
	gatewaytest.Must(t, err)

	see.do("apex-link", "works once", chromedp.Navigate(link))
	see.do("account-new", "logged in as "+owner, click("form button"))
	see.do("account-passkey", "phone of ann", chromedp.SendKeys(chromedp.CSS(`[data-passkey] input`), "phone of ann"), click("[data-passkey] button"))
	see.do("logged-out", "Log in with a passkey", click(`form:has([value="log-out"]) button`))

	see.do("private", "Nothing here that you may see", chromedp.Navigate(s.url("blog")+"/wanted"))
	see.do("ways", "Log in with a passkey", click(".buttons a"))
	see.do("by-passkey", "the app for "+owner+" at /wanted", click("[data-passkey] button"))
	see.do("account", "by passkey since", chromedp.Navigate(s.root()+"/.lodge/account"))
	see.do("everywhere", "Log in with a passkey", click(`form:has([value="log-out-everywhere"]) button`))

	see.do("private-again", "Nothing here that you may see", chromedp.Navigate(s.url("blog")+"/other"))
	see.do("ways-again", "Log in with zitadel", click(".buttons a"))
	see.do("provider", "Username", click(`form[action$="/zitadel"] button`))
	see.do("by-provider", "the app for "+owner+" at /other",
		chromedp.SendKeys(chromedp.CSS("#username"), "ann"), chromedp.SendKeys(chromedp.CSS("#password"), oidctest.Password), click("button"))

	see.do("bob-begins", "Log in with zitadel", chromedp.Navigate(s.root()+"/.lodge/account"), click(`form:has([value="log-out"]) button`))
	see.do("bob-at-provider", "Username", click(`form[action$="/zitadel"] button`))
	see.do("bob", "does not say that it has verified your mail address",
		chromedp.SendKeys(chromedp.CSS("#username"), "bob"), chromedp.SendKeys(chromedp.CSS("#password"), oidctest.Password), click("button"))
}
