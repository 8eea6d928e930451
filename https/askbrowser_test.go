package https_test

import (
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// TestAskAndStartWithABrowser: in a phone's width, from the page that one may not see through the request
// for it to that page; and from the page of a stopped VM, by its button, to where one wanted to go.
func TestAskAndStartWithABrowser(t *testing.T) {
	t.Parallel()
	k, b := newButtons(t)
	blog := k.vm("blog")
	k.app(blog, 8005, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<title>blog</title><h1>the app for " + r.Header.Get("X-Lodge-User") + " at " + r.URL.Path + "</h1>"))
	}))
	ctx := chromium(t, k.site)
	gatewaytest.Must(t, chromedp.Do(ctx, chromedp.EmulateViewport(360, 640)))
	see := eyes{t, ctx}
	link, err := k.server.LoginURL(t.Context(), gateway.ID{}, k.eve.ID)
	gatewaytest.Must(t, err)
	page := k.url("8005-blog") + "/wanted"

	see.do("ask-login", "works once", chromedp.Navigate(link))
	see.do("ask-account", "logged in as "+k.eve.Mail, click("form button"))
	see.do("ask-refused", "You are logged in as "+k.eve.Mail, chromedp.Navigate(page))
	see.do("ask", "would like to open it", click(".buttons a"))
	see.do("ask-asked", "Your request is recorded", click("form button"))
	for _, q := range k.site.asks.All() {
		gatewaytest.Must(t, b.Approve(t.Context(), k.people.Owner().ID, q.ID))
	}
	see.do("ask-opened", "the app for "+k.eve.Mail+" at /wanted", click(".buttons a"))

	k.change(blog, func(m *gateway.VM) { m.Desired, m.Grants = gateway.Stopped, m.WithGrant(k.eve.ID, gateway.Manage) })
	see.do("start-stopped", "blog is stopped", chromedp.Navigate(page))
	copied := `(() => { const b = document.querySelector(".copy"); return !b.hidden && (b.textContent == "Copied" || getSelection().toString().trim() == "lodge start blog") })()`
	gatewaytest.WaitFor(t, "the command is copied", func() bool { // again after the page has opened anew
		if chromedp.Do(ctx, click(".copy")) != nil {
			return false
		}
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](copied))
		return err == nil && ok
	})
	see.do("start-started", "the app for "+k.eve.Mail+" at /wanted", click("form button"))
}
