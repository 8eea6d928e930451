package pages_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/https/names"
	"lodge/https/pages"
)

// TestPages renders every page in its three forms.
func TestPages(t *testing.T) {
	renderer, err := pages.New("/* script */", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	rt := names.Route{
		Name: names.Name{Host: "8080-blog.lodge.localhost", VMName: "blog", Plain: "blog.lodge.localhost", Port: 8080},
		VM:   gateway.VM{Identity: gateway.Identity{ID: gateway.ID{1}, Name: "blog"}},
	}
	bucket := names.Route{Name: names.Name{Host: "my.photos.blog.s3.lodge.localhost", VMName: "blog", Service: "s3.lodge.localhost", Bucket: "my.photos"}, VM: rt.VM}
	open := []pages.Link{{Text: "port 9090", URL: "https://9090-blog.lodge.localhost"}}
	for name, tt := range map[string]struct {
		page pages.Page
		want []string
	}{
		"misdirected":               {pages.Misdirected(), nil},
		"not found":                 {pages.NotFound(), nil},
		"slow body":                 {pages.SlowBody(), nil},
		"bad request line":          {pages.BadRequestLine(), nil},
		"not a proxy":               {pages.NotAProxy(), nil},
		"internal error":            {pages.InternalError(), []string{"journalctl"}},
		"private":                   {pages.Private(rt, "https://lodge.localhost/.lodge/login", "https://lodge.localhost/.lodge/ask"), []string{"lodge open blog", "Ask for access"}},
		"denied to a VM":            {pages.DeniedToVM(rt), []string{"lodge share blog 8080 public"}},
		"cross-site":                {pages.CrossSite(rt), []string{"lodge share blog 8080 public"}},
		"cross-site, a bucket":      {pages.CrossSite(bucket), []string{"lodge share blog s3:my.photos public"}},
		"login button":              {pages.LoginButton(rt, "abc"), []string{`value="abc"`}},
		"link used":                 {pages.LinkUsed(rt), []string{"lodge open blog"}},
		"login failed":              {pages.LoginFailed(rt), []string{"Login failed"}},
		"stopped":                   {pages.Stopped(rt, false, "/"), []string{"blog is stopped"}},
		"stopped, owner":            {pages.Stopped(rt, true, "/a?b=\"c"), []string{"lodge start blog", `action="/.lodge/start"`, `value="/a?b=&#34;c"`}},
		"too many":                  {pages.TooMany(rt), nil},
		"busy":                      {pages.Busy(rt), nil},
		"no answer":                 {pages.NoAnswer(rt), nil},
		"bad answer":                {pages.BadAnswer(rt), nil},
		"nothing listens":           {pages.NothingListens(rt, false, open), []string{"port 8080 of blog", "https://9090-blog"}},
		"nothing listens, to owner": {pages.NothingListens(rt, true, open), []string{"python3 -m http.server 8080", "https://9090-blog"}},
		"ways":                      {pages.Ways([]string{"example"}, "https://blog.lodge.localhost/?a=\"b"), []string{"lodge open", `action="/.lodge/oidc/example"`, `value="https://blog.lodge.localhost/?a=&#34;b"`, `data-passkey="login"`, "/* script */"}},
		"link to the domain":        {pages.ApexLink("abc"), []string{`value="abc"`}},
		"used link to the domain":   {pages.ApexLinkUsed(), []string{"lodge open"}},
		"to a provider":             {pages.Continue("example", "https://accounts.example.com/auth?a=b&c=d"), []string{"accounts.example.com"}},
		"refused":                   {pages.Refused("ann@example.org", "https://lodge.localhost/.lodge/ask?to=x"), []string{"ann@example.org", "/.lodge/ask?to=x"}},
		"ask":                       {pages.Ask("blog.lodge.localhost", "https://blog.lodge.localhost/", "ann@example.org", ""), []string{`action="/.lodge/ask"`, "ann@example.org"}},
		"ask, stranger":             {pages.Ask("blog.lodge.localhost", "https://blog.lodge.localhost/", "", "/.lodge/login"), []string{`type="email"`, "Log in first"}},
		"failed":                    {pages.Failed(403, gateway.Errorf(gateway.KindDenied, "no <b>").WithHint("Try again."), "/"), []string{"No &lt;b&gt;.", "Try again."}},
		"account": {pages.AccountOf(pages.Account{
			Address: "ann@example.org", Passkeys: []pages.Item{{ID: "AA", Name: "<b>phone</b>"}}, Sessions: []pages.Item{{ID: "00", Name: "curl"}},
		}), []string{"&lt;b&gt;phone", `value="remove-passkey"`, `value="log-out-everywhere"`, `data-passkey="register"`}},
		"root": {pages.Root("lodge.localhost", false), []string{"lodge open &lt;vm&gt;"}},
	} {
		for accept, contentType := range map[string]string{
			"text/html": "text/html; charset=utf-8", "application/json": "application/json", "*/*": "text/plain; charset=utf-8",
		} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://8080-blog.lodge.localhost/", nil)
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			renderer.Render(w, r, tt.page)
			if w.Code != tt.page.Status || w.Header().Get("Content-Type") != contentType || !strings.Contains(w.Body.String(), tt.page.Title) {
				t.Errorf("%s as %s: %d %v\n%s", name, accept, w.Code, w.Header(), w.Body)
			}
			for _, want := range tt.want {
				if accept == "text/html" && !strings.Contains(w.Body.String(), want) {
					t.Errorf("%s lacks %q:\n%s", name, want, w.Body)
				}
			}
		}
	}
}
