package https_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// corsAPI answers fetch, EventSource and WebSocket with the visitor's name, to pages of any origin.
func corsAPI(w http.ResponseWriter, r *http.Request) {
	h, user := w.Header(), r.Header.Get("X-Lodge-User")
	h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Allow-Headers", "content-type")
	switch {
	case r.Method == http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/events":
		h.Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\n\n", user)
	case r.URL.Path == "/socket":
		c, err := upgraded(w, r)
		if err == nil {
			fmt.Fprintf(c, "\x81%c%s", len(user), user) // one text frame, RFC 6455 §5.2
			_, _ = io.Copy(io.Discard, c)               // until the browser hangs up
			_ = c.Close()                               // as above
		}
	default:
		_, _ = io.Copy(w, io.MultiReader(strings.NewReader(user), r.Body)) // the page shows it
	}
}

// corsPage uses the API at a host in four ways, and has the results in its title.
func corsPage(api string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<h1>page</h1><script>
const api = %q, json = {"Content-Type": "application/json"}
const text = r => r.ok ? r.text() : Promise.reject(r.status)
const all = {
  get: () => fetch(api + "/get", {credentials: "include"}).then(text),
  post: () => fetch(api + "/post", {method: "POST", credentials: "include", headers: json, body: "{}"}).then(text),
  events: () => new Promise((yes, no) => { const e = new EventSource(api + "/events", {withCredentials: true}); e.onmessage = m => { e.close(); yes(m.data) }; e.onerror = () => { e.close(); no("closed") } }),
  socket: () => new Promise((yes, no) => { const s = new WebSocket(api.replace("https", "wss") + "/socket"); s.onmessage = m => { s.close(); yes(m.data) }; s.onerror = () => no("closed") }),
}
Promise.all(Object.entries(all).map(([name, run]) => run().catch(e => "refused").then(got => name + "=" + got)))
  .then(got => document.title = "done " + got.join(" "))
</script>`, api)
	})
}

func TestChromiumAcrossPorts(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *https.Config) { c.AccessLog = true })
	blog, shop := s.vm("blog"), s.vm("shop", public(3000)...)
	s.app(blog, 3000, corsPage(s.url("8001-blog")))
	s.app(blog, 8001, http.HandlerFunc(corsAPI))
	s.app(shop, 3000, corsPage(s.url("8001-blog")))
	ctx := chromium(t, s)
	open := func(url, want string, more ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := chromedp.Do(limited, append([]chromedp.Action[chromedp.Void]{chromedp.Navigate(url)}, more...)...); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		gatewaytest.WaitFor(t, url, func() bool {
			title, err := chromedp.Run(ctx, chromedp.Title())
			if err == nil && strings.HasPrefix(title, "done") && title != want {
				t.Fatalf("%s: %q, want %q", url, title, want)
			}
			return err == nil && title == want
		})
	}
	works := fmt.Sprintf("done get=%[1]s post=%[1]s{} events=%[1]s socket=%[1]s", owner)
	// The plain name leads to port 3000: the first page after the login already uses the other port.
	open(s.link(blog), works, chromedp.Click(chromedp.CSS("button")))
	open(s.url("3000-blog"), works)
	gatewaytest.WaitFor(t, "a WebSocket on a connection of HTTP/2, which the browser has", func() bool { // since the first page
		return strings.Contains(s.log.String(), "method=CONNECT host=8001-blog.lodge.localhost path=/socket status=200 ")
	})
	open(s.url("3000-shop"), "done get=refused post=refused events=refused socket=refused")
}
