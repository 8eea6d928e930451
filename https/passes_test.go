package https_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// pass makes a link or a token of the owner's, for an hour.
func (s *site) pass(m gateway.VM, p gateway.Pass) (held string, made gateway.Pass) {
	s.tb.Helper()
	p.VM, p.Expires = m.ID, time.Now().Add(time.Hour)
	if p.Person == 0 {
		p.Person = s.people.Owner().ID
	}
	if p.Kind == gateway.LinkPass && p.MaxUses == 0 {
		p.MaxUses = 100
	}
	held, made, err := s.server.NewPass(s.tb.Context(), p)
	gatewaytest.Must(s.tb, err)
	return held, made
}

func link(port uint16) gateway.Pass  { return gateway.Pass{Kind: gateway.LinkPass, Port: port} }
func token(port uint16) gateway.Pass { return gateway.Pass{Kind: gateway.TokenPass, Port: port} }

// openLink does what the button of the link's page does.
func (s *site) openLink(c *http.Client, link string, header ...string) answer {
	s.tb.Helper()
	u := mustParse(s.tb, link)
	form := url.Values{"token": {u.Query().Get("secret")}}.Encode()
	u.RawQuery = ""
	return s.do(c, http.MethodPost, u.String(), strings.NewReader(form), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

func byLink(ports ...uint16) (shares []gateway.Share) {
	for _, port := range ports {
		shares = append(shares, gateway.Share{Port: port, Visibility: gateway.Link})
	}
	return shares
}

func TestLinkOpensOnePortInOneBrowser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog, shop := s.vm("blog", byLink(8001, 8002)...), s.vm("shop", byLink(8001)...)
	for _, port := range []uint16{8001, 8002} {
		s.app(blog, port, echo("blog"))
		s.app(shop, port, echo("shop"))
	}
	held, _ := s.pass(blog, link(8001))
	c := s.client()
	for range 3 { // a mail filter does not use it up
		if a := s.get(s.client(), held, browser()...); a.StatusCode != 200 || !strings.Contains(a.body, `action="/.lodge/link"`) || len(a.Cookies()) != 0 {
			t.Fatalf("the link's page: %s, %v: %s", a.Status, a.Cookies(), a.body)
		}
	}
	if a := s.openLink(s.client(), held, "Origin", s.url("shop")); a.StatusCode != 403 {
		t.Errorf("by another VM's page: %s", a.Status)
	}
	a := s.openLink(c, held)
	if a.StatusCode != 303 || a.Header.Get("Location") != "/" || len(a.Cookies()) != 1 {
		t.Fatalf("the link: %s to %q, %v", a.Status, a.Header.Get("Location"), a.Cookies())
	}
	cookie := a.Cookies()[0]
	if cookie.Name != "__Host-lodge-visit" || !cookie.Secure || !cookie.HttpOnly || cookie.Domain != "" || cookie.Path != "/" || cookie.MaxAge > 3600 || cookie.MaxAge < 3500 {
		t.Errorf("the cookie: %v", cookie)
	}
	a = s.get(c, s.url("8001-blog"))
	if a.StatusCode != 200 || strings.Contains(a.body, "X-Lodge") || strings.Contains(a.body, "lodge-visit") {
		t.Errorf("the port: %s, and the app sees\n%s", a.Status, a.body)
	}
	for host, want := range map[string]int{"8001-blog": 200, "8002-blog": 401, "blog": 401, "8001-shop": 401} {
		if a := s.get(s.client(), s.url(host), "Cookie", cookie.Name+"="+cookie.Value); a.StatusCode != want {
			t.Errorf("the cookie at %s: %s", host, a.Status)
		}
		if a := s.get(s.client(), s.url(host), "Cookie", "__Host-lodge="+cookie.Value); a.StatusCode != 401 {
			t.Errorf("as a session at %s: %s", host, a.Status)
		}
	}
	for _, host := range []string{"8002-blog", "blog", "8001-shop"} {
		other := strings.Replace(held, "8001-blog", host, 1)
		if a := s.openLink(s.client(), other); a.StatusCode != 403 {
			t.Errorf("the link at %s: %s", host, a.Status)
		}
	}
	if a := s.openLink(s.client(), strings.Replace(held, "secret=", "secret=x", 1)); a.StatusCode != 403 {
		t.Errorf("a wrong link: %s", a.Status)
	}
	if a := s.get(c, s.url("8001-blog"), "Sec-Fetch-Site", "same-site", "Origin", s.url("shop")); a.StatusCode != 403 {
		t.Errorf("a sibling's script with the visitor's cookie: %s", a.Status)
	}
}

func TestUsesOfALinkAreCounted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog", byLink(8001)...)
	held, made := s.pass(blog, gateway.Pass{Kind: gateway.LinkPass, Port: 8001, MaxUses: 3})
	var in, out atomic.Int32
	var clicking sync.WaitGroup
	for range 10 {
		c := s.client()
		clicking.Go(func() {
			if a := s.openLink(c, held); a.StatusCode == 303 {
				in.Add(1)
			} else if a.StatusCode == 403 {
				out.Add(1)
			}
		})
	}
	clicking.Wait()
	all, err := s.server.Passes(t.Context(), blog.ID, gateway.LinkPass)
	if err != nil || len(all) != 1 || all[0].ID != made.ID || all[0].Uses != 3 || in.Load() != 3 || out.Load() != 7 {
		t.Errorf("%d are in, %d out; %+v, %v", in.Load(), out.Load(), all, err)
	}
}

// Whatever ends a link, or a token, ends what is open by it, and opens nothing any more.
func TestWhatIsOpenByAPassEndsWithIt(t *testing.T) {
	t.Parallel()
	type change func(*testing.T, known, gateway.VM, gateway.Pass)
	remove := func(t *testing.T, k known, m gateway.VM, p gateway.Pass) {
		t.Helper()
		gatewaytest.Must(t, k.server.RemovePass(t.Context(), m.ID, p.Kind, p.ID))
	}
	person := func(t *testing.T, k known, _ gateway.VM, _ gateway.Pass) {
		t.Helper()
		_, err := k.people.Remove(t.Context(), k.ada.Mail)
		gatewaytest.Must(t, err)
	}
	grant := func(_ *testing.T, k known, m gateway.VM, _ gateway.Pass) {
		k.change(m, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.NoLevel) })
	}
	private := func(_ *testing.T, k known, m gateway.VM, _ gateway.Pass) {
		k.change(m, func(m *gateway.VM) { m.Shares = nil })
	}
	gone := func(t *testing.T, k known, m gateway.VM, _ gateway.Pass) {
		t.Helper()
		k.change(m, func(m *gateway.VM) { m.Desired = gateway.Removed })
		gatewaytest.Must(t, k.server.Remove(t.Context(), m.ID))
		again := k.vm("blog", byLink(8001)...) // of the same name
		k.app(again, 8001, echo("another"))
	}
	for name, tt := range map[string]struct {
		kind   gateway.PassKind
		change change
	}{
		"link removed": {gateway.LinkPass, remove}, "token removed": {gateway.TokenPass, remove},
		"link, its maker removed": {gateway.LinkPass, person}, "token, its maker removed": {gateway.TokenPass, person},
		"link, its maker's grant removed": {gateway.LinkPass, grant}, "token, its maker's grant removed": {gateway.TokenPass, grant},
		"link, port made private": {gateway.LinkPass, private},
		"link, VM removed":        {gateway.LinkPass, gone}, "token, VM removed": {gateway.TokenPass, gone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKnown(t)
			blog := k.vm("blog", byLink(8001)...)
			k.app(blog, 8001, http.HandlerFunc(endless))
			k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.Manage) })
			held, made := k.pass(blog, gateway.Pass{Kind: tt.kind, Port: 8001, Person: k.ada.ID})
			kept, _ := k.pass(blog, link(8001)) // the owner's
			c, other := k.client(), k.client()
			k.openLink(other, kept)
			var header []string
			if tt.kind == gateway.LinkPass {
				k.openLink(c, held)
			} else {
				header = []string{"Authorization", "Bearer " + held}
			}
			stream := k.openStreamWith(c, k.url("8001-blog"), header...)
			others := k.openStream(other, k.url("8001-blog"))
			tt.change(t, k, blog, made)
			if stream() == nil {
				t.Error("what was open still is")
			}
			if all := strings.Contains(name, "private") || strings.Contains(name, "VM"); (others() != nil) != all {
				t.Error("the stream of another link: wrong")
			}
			if status := k.status(c, k.url("8001-blog"), header...); status != 401 {
				t.Errorf("afterwards: %d", status)
			}
			if tt.kind == gateway.LinkPass {
				if a := k.openLink(k.client(), held); a.StatusCode != 403 {
					t.Errorf("the link once more: %s", a.Status)
				}
			}
		})
	}
}

func TestTokenOpensItsPortForItsTime(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog, shop := k.vm("blog", public(8003)...), k.vm("shop")
	for _, port := range []uint16{80, 8001, 8002, 8003} {
		k.app(blog, port, echo("blog"))
		k.app(shop, port, echo("shop"))
	}
	one, _ := k.pass(blog, token(8001))
	all, _ := k.pass(blog, gateway.Pass{Kind: gateway.TokenPass, AllPorts: true})
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+one))
	for _, tt := range []struct {
		authorization, host string
		want                int
	}{
		{"Bearer " + one, "8001-blog", 200},
		{basic, "8001-blog", 200},
		{"Bearer " + one, "8002-blog", 401},
		{"Bearer " + one, "blog", 401},
		{"Bearer " + one, "8001-shop", 401},
		{"Bearer " + one, "absent", 401},
		{"Bearer " + one, "8003-blog", 200}, // as for a stranger
		{"Bearer " + all, "8001-blog", 200},
		{"Bearer " + all, "blog", 200},
		{"Bearer " + all, "any.blog", 200},
		{"Bearer " + all, "8001-shop", 401},
		{"Bearer lodge_" + strings.Repeat("A", 43), "8001-blog", 401},
		{"Bearer " + one[6:], "8001-blog", 401},
	} {
		a := k.get(k.client(), k.url(tt.host), "Authorization", tt.authorization)
		if a.StatusCode != tt.want || strings.Contains(a.body, "Authorization") || strings.Contains(a.body, one) || strings.Contains(a.body, "X-Lodge-User") {
			t.Errorf("%.30s at %s: %s, want %d:\n%s", tt.authorization, tt.host, a.Status, tt.want, a.body)
		}
		if tt.host == "8001-blog" && a.StatusCode == 200 && !strings.Contains(a.body, "X-Lodge-Token: ") {
			t.Errorf("the app does not see that a token is used:\n%s", a.body)
		}
	}
	if a := k.get(k.client(), k.url("8003-blog"), "Authorization", "Bearer the-app's", "X-Lodge-Token", "forged"); !strings.Contains(a.body, "Authorization: Bearer the-app's") || strings.Contains(a.body, "forged") {
		t.Errorf("the app's own token:\n%s", a.body)
	}
	if a := k.get(k.client(), k.url("8001-blog"), "Authorization", "Bearer "+one, "Origin", k.url("shop")); a.StatusCode != 403 {
		t.Errorf("by another VM's page: %s", a.Status)
	}
	if a := k.get(k.client(), k.url("8001-blog"), append(browser(), "Authorization", "Bearer "+one)...); a.StatusCode != 200 {
		t.Errorf("in a browser: %s", a.Status)
	}
	k.logins.ahead.Store(int64(2 * time.Hour))
	fresh := k.restarted() // which has cached nothing
	if a := fresh.get(fresh.client(), fresh.url("8001-blog"), "Authorization", "Bearer "+one); a.StatusCode != 401 {
		t.Errorf("after its end: %s", a.Status)
	}
	if log := k.log.String(); strings.Contains(log, one[6:]) || strings.Contains(log, all[6:]) {
		t.Error("a token is in the log")
	}
}

// A token of one who is removed opens nothing, and what is open by it ends, at a public port too: the app
// there knows the token.
func TestTokenEndsWithItsMaker(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog := k.vm("blog", public(8003)...)
	k.app(blog, 8003, http.HandlerFunc(endless))
	held, _ := k.pass(blog, gateway.Pass{Kind: gateway.TokenPass, Person: k.ada.ID, AllPorts: true})
	stream := k.openStreamWith(k.client(), k.url("8003-blog"), "Authorization", "Bearer "+held)
	_, err := k.people.Remove(t.Context(), k.ada.Mail)
	gatewaytest.Must(t, err)
	if stream() == nil {
		t.Error("the stream still is open")
	}
}

// The browsers that a link lets in count as secrets of who made it.
func TestVisitsAreOfTheLinksMaker(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog := k.vm("blog", byLink(8001)...)
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.Manage) })
	k.app(blog, 8001, echo("8001"))
	made := link(8001)
	made.Person = k.ada.ID
	held, _ := k.pass(blog, made)
	k.openLink(k.client(), held)
	visits, err := k.logins.ListSecrets(t.Context(), gateway.SecretsOf{Kind: "visit", Person: k.ada.ID}, time.Now())
	if err != nil || len(visits) != 1 {
		t.Errorf("visits of the maker: %d, %v", len(visits), err)
	}
}
