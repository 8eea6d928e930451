package https_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/https"
)

// starts posts the form of the page of a stopped VM.
func (k known) starts(c *http.Client, host, path string, header ...string) answer {
	k.tb.Helper()
	header = append(header, "Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html")
	return k.do(c, http.MethodPost, k.url(host)+"/.lodge/start", strings.NewReader(url.Values{"path": {path}}.Encode()), header...)
}

// The button starts the VM for who may manage it, and for nobody else, from the VM's own page alone.
func TestStartButton(t *testing.T) {
	t.Parallel()
	k, b := newButtons(t)
	var starts atomic.Int32
	start := b.host.start
	b.host.start = func(ctx context.Context, id gateway.ID) error {
		starts.Add(1)
		return start(ctx, id)
	}
	blog := k.vm("blog")
	k.app(blog, 80, echo("blog"))
	stop := func() { k.change(blog, func(m *gateway.VM) { m.Desired = gateway.Stopped }) }
	for who, level := range map[gateway.Principal]gateway.Level{k.ada.ID: gateway.Manage, k.bob.ID: gateway.Use, k.eve.ID: gateway.View} {
		k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(who, level) })
	}
	stop()
	own := []string{"Origin", k.url("blog")}
	for name, tt := range map[string]struct {
		who  people.Person
		want int
	}{"who may use": {k.bob, http.StatusForbidden}, "who may view": {k.eve, http.StatusForbidden}} {
		c := k.opened(blog, tt.who)
		if a := k.get(c, k.url("blog"), browser()...); a.StatusCode != http.StatusServiceUnavailable || strings.Contains(a.body, "<form") {
			t.Errorf("%s: %s: %s", name, a.Status, a.body)
		}
		if a := k.starts(c, "blog", "/", own...); a.StatusCode != tt.want {
			t.Errorf("started by %s: %s", name, a.Status)
		}
	}
	ada := k.opened(blog, k.ada)
	for name, a := range map[string]answer{
		"another VM's page": k.starts(ada, "blog", "/", "Origin", k.url("shop")),
		"another site":      k.starts(ada, "blog", "/", "Origin", "https://evil.example"),
		"a stranger":        k.starts(k.client(), "blog", "/", own...),
		"the VM itself":     k.starts(k.tap(blog), "blog", "/"),
	} {
		if a.StatusCode/100 != 4 {
			t.Errorf("started by %s: %s", name, a.Status)
		}
	}
	if starts.Load() != 0 {
		t.Fatalf("%d starts", starts.Load())
	}
	if a := k.get(ada, k.url("blog")+"/wanted?a=b", browser()...); !strings.Contains(a.body, `action="/.lodge/start"`) || !strings.Contains(a.body, `value="/wanted?a=b"`) {
		t.Errorf("no button: %s", a.body)
	}
	if a := k.starts(ada, "blog", "/wanted?a=b", own...); a.StatusCode != http.StatusOK || !strings.Contains(a.body, `content="1;url=/wanted?a=b"`) {
		t.Errorf("started: %s: %s", a.Status, a.body)
	}
	if a := k.get(ada, k.url("blog")+"/wanted?a=b", "Accept", "text/plain"); a.StatusCode != http.StatusOK || starts.Load() != 1 {
		t.Errorf("afterwards: %s, %d starts", a.Status, starts.Load())
	}
	if a := k.starts(ada, "blog", "/x", own...); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/x" || starts.Load() != 1 {
		t.Errorf("while it runs: %s, %d starts", a.Status, starts.Load())
	}
	stop()
	for _, path := range []string{"//evil.example", "https://evil.example", "\\evil.example", ""} {
		if a := k.starts(ada, "blog", path, own...); !strings.Contains(a.body, `content="1;url=/"`) {
			t.Errorf("%q: %s: %s", path, a.Status, a.body)
		}
		stop()
	}
	b.host.start = func(context.Context, gateway.ID) error {
		return gateway.Errorf(gateway.KindNoSpace, "no memory is left").WithHint("Stop another VM.")
	}
	if a := k.starts(ada, "blog", "/wanted", own...); a.StatusCode != http.StatusInsufficientStorage || !strings.Contains(a.body, "No memory is left.") || !strings.Contains(a.body, `href="/wanted"`) {
		t.Errorf("not started: %s: %s", a.Status, a.body)
	}
}

// Who may only open the page may start a VM that requests wake: the request for the page does.
func TestStartButtonOfASleeper(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	k, _ := newButtons(t, func(c *https.Config) {
		dir := c.Directory
		c.Wake = func(ctx context.Context, id gateway.ID) error {
			<-gate
			_, err := dir.Update(ctx, id, func(m *gateway.VM) error { m.Desired = gateway.Running; return nil })
			return err
		}
	})
	blog := k.vm("blog")
	k.app(blog, 80, echo("blog"))
	k.change(blog, func(m *gateway.VM) {
		m.Desired, m.WakeOnRequest, m.Grants = gateway.Stopped, true, m.WithGrant(k.eve.ID, gateway.View)
	})
	eve := k.opened(blog, k.eve)
	if a := k.starts(eve, "blog", "/wanted", "Origin", k.url("blog")); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/wanted" {
		t.Errorf("the button: %s", a.Status)
	}
	close(gate)
	if a := k.get(eve, k.url("blog")+"/wanted"); a.StatusCode != http.StatusOK {
		t.Errorf("the page: %s", a.Status)
	}
}

// While the VM starts, requests for it are held until its port answers.
func TestRequestsAreHeldWhileTheButtonStartsTheVM(t *testing.T) {
	t.Parallel()
	k, b := newButtons(t)
	blog := k.vm("blog")
	k.change(blog, func(m *gateway.VM) { m.Desired = gateway.Stopped })
	ann := k.opened(blog, k.people.Owner())
	begun, gate := make(chan struct{}), make(chan struct{})
	start := b.host.start
	b.host.start = func(ctx context.Context, id gateway.ID) error {
		close(begun)
		<-gate
		return start(ctx, id)
	}
	done := make(chan answer, 2)
	go func() { done <- k.starts(ann, "blog", "/wanted", "Origin", k.url("blog")) }()
	<-begun
	go func() { done <- k.get(ann, k.url("blog")+"/wanted") }()
	s := sleepers{site: k.site}
	s.held(1)
	k.app(blog, 80, echo("blog"))
	close(gate)
	for range 2 {
		if a := <-done; a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", a.Status, a.body)
		}
	}
}

// The page for a port on which nothing listens links to those that the visitor may open, and to no others.
func TestPageLinksToPortsThatTheVisitorMayOpen(t *testing.T) {
	t.Parallel()
	k, _ := newButtons(t)
	blog := k.vm("blog",
		gateway.Share{Port: 7000, Visibility: gateway.Public}, gateway.Share{Port: 7001, Visibility: gateway.Public},
		gateway.Share{Port: 7002, Visibility: gateway.People, With: []gateway.Principal{k.eve.ID}},
		gateway.Share{Port: 7003, Visibility: gateway.People, With: []gateway.Principal{k.eve.ID}})
	for _, port := range []uint16{7001, 7002, 8080} {
		k.app(blog, port, echo("app"))
	}
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.View) })
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.bob.ID, gateway.Use) })
	for name, tt := range map[string]struct {
		c           *http.Client
		host, ports string
		command     bool
	}{
		"a stranger":   {k.client(), "7000-blog", "7001", false},
		"a person":     {k.opened(blog, k.eve, "7003"), "7003-blog", "7001 7002", false},
		"who may view": {k.opened(blog, k.ada, "7003"), "7003-blog", "7001 7002 8080", false},
		"who may use":  {k.opened(blog, k.bob, "7003"), "7003-blog", "7001 7002 8080", true},
	} {
		a := k.get(tt.c, k.url(tt.host), "Accept", "text/html")
		var ports []string
		for _, port := range []string{"7000", "7001", "7002", "7003", "8080"} {
			if strings.Contains(a.body, `href="`+k.url(port+"-blog")+`"`) {
				ports = append(ports, port)
			}
		}
		if a.StatusCode != http.StatusBadGateway || strings.Join(ports, " ") != tt.ports || strings.Contains(a.body, "http.server") != tt.command {
			t.Errorf("%s: %s, ports %v: %s", name, a.Status, ports, a.body)
		}
		if policy := a.Header.Get("Content-Security-Policy"); strings.Contains(policy, "script-src 'sha256-") != tt.command {
			t.Errorf("%s: the policy %q", name, policy)
		}
	}
}

// The page of a link shows whether it has a use, and changes nothing.
func TestLinkPagesShowWhatTheLinkIsWorth(t *testing.T) {
	t.Parallel()
	k, _ := newButtons(t)
	blog, shop := k.vm("blog", gateway.Share{Port: 8000, Visibility: gateway.Link}), k.vm("shop")
	used, fresh := k.link(blog), k.link(blog)
	k.useLink(k.client(), used)
	apex, err := k.server.LoginURL(t.Context(), gateway.ID{}, k.ada.ID)
	gatewaytest.Must(t, err)
	k.loginAtRootAs(k.client(), k.ada)
	port, made := k.pass(blog, gateway.Pass{Kind: gateway.LinkPass, Person: k.people.Owner().ID, Port: 8000, MaxUses: 1})
	for name, tt := range map[string]struct {
		link string
		want int
	}{
		"a login link":           {fresh, http.StatusOK},
		"a used one":             {used, http.StatusForbidden},
		"at another VM":          {strings.Replace(fresh, "//blog.", "//"+shop.Name+".", 1), http.StatusForbidden},
		"not one":                {k.url("blog") + "/.lodge/login?token=abc", http.StatusForbidden},
		"without a token":        {k.url("blog") + "/.lodge/login", http.StatusForbidden},
		"one to the domain":      {apex, http.StatusOK},
		"not one to the domain":  {k.root() + "/.lodge/login?token=abc", http.StatusForbidden},
		"one to a port":          {port, http.StatusOK},
		"one to a port, at shop": {strings.Replace(port, "-blog.", "-shop.", 1), http.StatusForbidden},
		"one to a port, at 8001": {strings.Replace(port, "8000-", "8001-", 1), http.StatusForbidden},
		"not one to a port":      {k.url("8000-blog") + "/.lodge/link?secret=abc", http.StatusForbidden},
	} {
		for range 2 {
			if a := k.get(k.client(), tt.link, browser()...); a.StatusCode != tt.want || (tt.want == http.StatusOK) != strings.Contains(a.body, "<form") {
				t.Errorf("%s: %s: %s", name, a.Status, a.body)
			}
		}
	}
	if a := k.useLink(k.client(), fresh); a.StatusCode != http.StatusSeeOther {
		t.Errorf("the link, after its page: %s", a.Status)
	}
	if all, err := k.server.Passes(t.Context(), blog.ID, gateway.LinkPass); err != nil || len(all) != 1 || all[0].ID != made.ID || all[0].Uses != 0 {
		t.Errorf("the link to a port, after its page: %+v, %v", all, err)
	}
}
