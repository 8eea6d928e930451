package https_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"lodge/gateway"
	verbs "lodge/gateway/api"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/https"
)

// buttons is Config.Verbs: the real API, over a host whose VMs the test starts.
type buttons struct {
	site *site
	host host
}

// host starts VMs.
type host struct {
	verbs.Machines
	verbs.Observer
	start func(ctx context.Context, id gateway.ID) error
}

func (h host) Start(ctx context.Context, id gateway.ID) error { return h.start(ctx, id) }

func (host) Status(context.Context, gateway.ID) gateway.Status {
	return gateway.Status{State: "running"}
}

func (b *buttons) as(person gateway.Principal) verbs.Session {
	s := b.site
	return verbs.New(verbs.Config{
		Directory: s.dir, People: s.people, Requests: s.asks, Machines: b.host, Observer: b.host, Web: s.server, Passes: s.server, Domain: s.domain,
		Logger: slog.New(slog.NewTextHandler(s.log, nil)),
	}).As(verbs.PersonCaller(person))
}

func (b *buttons) Start(ctx context.Context, by gateway.Principal, vm gateway.VM) error {
	_, err := b.as(by).Start(ctx, vm.Name)
	return err
}

func (b *buttons) Requests(ctx context.Context, by gateway.Principal) (all []gateway.AccessRequest, err error) {
	shown, err := b.as(by).Requests(ctx)
	for _, one := range shown {
		q, _ := b.site.asks.ByID(one.ID)
		all = append(all, q)
	}
	return all, err
}

func (b *buttons) Approve(ctx context.Context, by gateway.Principal, id string) error {
	_, err := b.as(by).Approve(ctx, id)
	return err
}

func (b *buttons) Deny(ctx context.Context, by gateway.Principal, id string) error {
	return b.as(by).Deny(ctx, id)
}

// newButtons is a site with people, whose pages have buttons.
func newButtons(t *testing.T, change ...func(*https.Config)) (known, *buttons) {
	t.Helper()
	b := &buttons{}
	b.host.start = func(ctx context.Context, id gateway.ID) error {
		_, err := b.site.dir.Update(ctx, id, func(m *gateway.VM) error { m.Desired = gateway.Running; return nil })
		return err
	}
	k := known{site: newSiteWith(t, func(s *site, c *https.Config) {
		b.site, c.Verbs = s, b
		for _, f := range change {
			f(c)
		}
	})}
	k.ada, k.bob, k.eve = k.person("ada@example.com"), k.person("bob@example.net"), k.person("eve@example.org")
	return k, b
}

// asks posts the form that asks for access to the page of a host.
func (k known) asks(c *http.Client, host, address string) answer {
	k.tb.Helper()
	return k.form(c, "/.lodge/ask", url.Values{"to": {k.url(host) + "/wanted"}, "address": {address}}, "Origin", k.root())
}

// atRoot is a browser that is logged in at the domain.
func (k known) atRoot(who people.Person) *http.Client {
	k.tb.Helper()
	c := k.client()
	k.loginAtRootAs(c, who)
	return c
}

// From the page that somebody may not see, through the request and its approval, to that page and no other.
func TestAccessIsAskedForAndApproved(t *testing.T) {
	t.Parallel()
	k, _ := newButtons(t)
	blog := k.vm("blog")
	k.app(blog, 8005, echo("8005"))
	k.app(blog, 8006, echo("8006"))
	eve, ann, bob := k.atRoot(k.eve), k.atRoot(k.people.Owner()), k.atRoot(k.bob)

	a := k.through(eve, k.root()+"/.lodge/login?"+url.Values{"to": {k.url("8005-blog") + "/wanted"}}.Encode())
	ask := "/.lodge/ask?" + url.Values{"to": {k.url("8005-blog") + "/wanted"}}.Encode()
	if a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "Nothing here that you may see") || !strings.Contains(a.body, strings.ReplaceAll(ask, "&", "&amp;")) ||
		!strings.Contains(a.body, k.eve.Mail) || strings.Contains(a.body, "Log in") {
		t.Fatalf("refused: %s: %s", a.Status, a.body)
	}
	if a = k.get(eve, k.root()+ask, browser()...); a.StatusCode != http.StatusOK || len(k.site.asks.All()) != 0 {
		t.Fatalf("the GET has asked: %s, %v", a.Status, k.site.asks.All())
	}
	if a = k.asks(eve, "8005-blog", ""); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "request is recorded") {
		t.Fatalf("asked: %s: %s", a.Status, a.body)
	}
	all := k.site.asks.All()
	if len(all) != 1 || all[0].Person != k.eve.ID || all[0].Address != k.eve.Mail || all[0].VM != blog.ID || all[0].Port != 8005 || all[0].From != "127.0.0.1" {
		t.Fatalf("the request is %+v", all)
	}
	link := k.server.RequestURL(all[0].ID)
	if a := k.get(ann, k.root()+"/.lodge/account", browser()...); !strings.Contains(a.body, all[0].ID) || !strings.Contains(a.body, k.eve.Mail+" asks for 8005-blog") {
		t.Errorf("the owner's account: %s", a.body)
	}
	for range 2 { // as a mail filter does
		if a := k.get(ann, link, browser()...); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "Approve") {
			t.Errorf("the link: %s: %s", a.Status, a.body)
		}
	}
	if a := k.get(k.client(), link, browser()...); a.StatusCode != http.StatusFound || !strings.Contains(a.Header.Get("Location"), "login") {
		t.Errorf("the link for a stranger: %s", a.Status)
	}
	answerIt := func(c *http.Client, do string, header ...string) answer {
		return k.form(c, "/.lodge/requests", url.Values{"do": {do}, "id": {all[0].ID}}, header...)
	}
	for name, a := range map[string]answer{
		"who asked":       answerIt(eve, "approve", "Origin", k.root()),
		"somebody":        answerIt(bob, "approve", "Origin", k.root()),
		"a VM's page":     answerIt(ann, "approve", "Origin", k.url("blog")),
		"another do":      answerIt(ann, "delete", "Origin", k.root()),
		"a VM on its tap": k.form(k.tap(blog), "/.lodge/requests", url.Values{"do": {"approve"}, "id": {all[0].ID}}),
	} {
		if a.StatusCode/100 != 4 {
			t.Errorf("approved by %s: %s", name, a.Status)
		}
	}
	if a := k.get(bob, link, browser()...); strings.Contains(a.body, "Approve") || strings.Contains(a.body, k.eve.Mail) {
		t.Errorf("the link for who may not answer: %s", a.body)
	}
	if m, _ := k.dir.ByID(blog.ID); len(m.Shares) != 0 || len(k.site.asks.All()) != 1 {
		t.Fatalf("something is changed: %+v", m.Shares)
	}

	if a := answerIt(ann, "approve", "Origin", k.root()); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "may open 8005-blog") {
		t.Fatalf("approved: %s: %s", a.Status, a.body)
	}
	if a := answerIt(ann, "approve", "Origin", k.root()); a.StatusCode != http.StatusNotFound {
		t.Errorf("approved twice: %s", a.Status)
	}
	k.through(eve, k.root()+ask)
	if a := k.get(eve, k.url("8005-blog")+"/wanted"); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "uri=/wanted") {
		t.Errorf("the page: %s: %s", a.Status, a.body)
	}
	for host, who := range map[string]*http.Client{"8006-blog": eve, "blog": eve, "8005-blog": bob} {
		if a := k.through(who, k.root()+"/.lodge/login?"+url.Values{"to": {k.url(host) + "/"}}.Encode()); a.StatusCode != http.StatusForbidden {
			t.Errorf("also %s: %s", host, a.Status)
		}
	}
	log := k.log.String()
	if !strings.Contains(log, "event=access.asked") || !strings.Contains(log, "event=access.approved") || !strings.Contains(log, "by="+owner) {
		t.Error("the log lacks the events")
	}
}

// Who asks learns nothing of what exists, however often they ask: not for a private name, a stopped VM, one
// that there is not, and one that there was.
func TestAskingShowsNothingOfWhatExists(t *testing.T) {
	t.Parallel()
	k, _ := newButtons(t)
	k.vm("blog")
	k.change(k.vm("stop"), func(m *gateway.VM) { m.Desired = gateway.Stopped })
	for who, address := range map[string]string{"bob": "", "a stranger": "new@example.com"} {
		looks := map[string][]string{}
		for _, vm := range []string{"blog", "stop", "nope"} {
			c := k.client()
			if address == "" {
				c = k.atRoot(k.person(vm + "-fan@example.com"))
			}
			for i := range gateway.MaxAccessRequestsOfPerson + 2 {
				host := fmt.Sprintf("%d-%s", 8000+i, vm)
				page := k.get(c, k.root()+"/.lodge/ask?"+url.Values{"to": {k.url(host) + "/"}}.Encode(), browser()...)
				a := k.asks(c, host, address)
				looks[vm] = append(looks[vm], strings.ReplaceAll(page.Status+page.body+"\n"+a.Status+a.body, vm, "NAME"))
			}
			if who == "a stranger" { // all come from one address
				gatewaytest.Must(t, k.site.asks.Remove(t.Context(), func(gateway.AccessRequest) bool { return true }))
			}
		}
		for i := range looks["nope"] {
			if looks["blog"][i] != looks["nope"][i] || looks["stop"][i] != looks["nope"][i] {
				t.Fatalf("%s, request %d: a private name and an unknown one:\n%s\n\n%s", who, i, looks["blog"][i], looks["nope"][i])
			}
		}
	}
}

// Somebody who is not logged in is noted as unproven, and gains nothing by the approval but that an address
// may log in.
func TestAskingWithATypedAddress(t *testing.T) {
	t.Parallel()
	k, b := newButtons(t)
	blog := k.vm("blog")
	k.app(blog, 8005, echo("8005"))
	c := k.client()
	for _, bad := range []string{"", "new", "<b>new@example.com", "new@exam ple.com", strings.Repeat("a", 300) + "@example.com", "ne\u0301w@example.com"} {
		if a := k.asks(c, "8005-blog", bad); a.StatusCode != http.StatusBadRequest || strings.Contains(a.body, "<b>new") {
			t.Errorf("%.40q: %s", bad, a.Status)
		}
	}
	if a := k.asks(c, "8005-blog", "New@EXAMPLE.com"); a.StatusCode != http.StatusOK {
		t.Fatalf("asked: %s: %s", a.Status, a.body)
	}
	q := k.site.asks.All()[0]
	if q.Proven() || q.Address != "new@example.com" {
		t.Errorf("the request is %+v", q)
	}
	if a := k.get(k.atRoot(k.people.Owner()), k.server.RequestURL(q.ID), browser()...); !strings.Contains(a.body, "not proved") {
		t.Errorf("the owner is not told: %s", a.body)
	}
	gatewaytest.Must(t, b.Approve(t.Context(), k.people.Owner().ID, q.ID))
	if a := k.get(c, k.url("8005-blog")); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the browser that asked: %s", a.Status)
	}
	someone, ok := k.people.ByMail("new@example.com")
	if !ok || someone.Role != people.Guest {
		t.Fatalf("approved: %+v", someone)
	}
	if a := k.through(k.atRoot(someone), k.root()+"/.lodge/login?"+url.Values{"to": {k.url("8005-blog") + "/"}}.Encode()); a.StatusCode != http.StatusOK {
		t.Errorf("once logged in: %s", a.Status)
	}
}

// A new request for the page of a VM is reported, once; one for a name that no VM has is not.
func TestAskingIsReported(t *testing.T) {
	t.Parallel()
	reported := make(chan gateway.AccessRequest, 10)
	k, _ := newButtons(t, func(c *https.Config) { c.Asked = func(q gateway.AccessRequest) { reported <- q } })
	blog := k.vm("blog")
	for _, host := range []string{"8005-blog", "8005-nope", "8005-blog"} {
		if a := k.asks(k.client(), host, "new@example.com"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", host, a.Status)
		}
	}
	if q := <-reported; q.VM != blog.ID || q.ID == "" || q.Address != "new@example.com" || len(reported) != 0 {
		t.Errorf("%+v, and %d more", q, len(reported))
	}
}

// A form elsewhere asks for nothing, and what a link names leads nowhere else.
func TestAskingForWhatIsElsewhere(t *testing.T) {
	t.Parallel()
	k, _ := newButtons(t)
	k.vm("blog")
	eve := k.atRoot(k.eve)
	for _, from := range []string{k.url("blog"), "https://evil.example", "null"} {
		a := k.form(eve, "/.lodge/ask", url.Values{"to": {k.url("blog") + "/"}}, "Origin", from)
		if a.StatusCode != http.StatusForbidden {
			t.Errorf("a form at %s: %s", from, a.Status)
		}
	}
	for _, to := range []string{"", "https://evil.example/", k.root() + "/", k.url("blog") + "@evil.example/", "http://blog.lodge.localhost/", "//evil.example", "javascript:alert(1)", "https://blog.lodge.internal/"} {
		if a := k.form(eve, "/.lodge/ask", url.Values{"to": {to}}, "Origin", k.root()); a.StatusCode != http.StatusBadRequest {
			t.Errorf("asked for %q: %s", to, a.Status)
		}
		if a := k.get(eve, k.root()+"/.lodge/ask?"+url.Values{"to": {to}}.Encode()); a.StatusCode != http.StatusNotFound {
			t.Errorf("the page for %q: %s", to, a.Status)
		}
	}
	for to, want := range map[string]string{
		k.root() + "/.lodge/requests?id=0123456789abcdef": "/.lodge/requests?id=0123456789abcdef",
		k.root() + "/.lodge/requests":                     "/.lodge/requests",
		k.root() + "/.lodge/ask?to=x":                     "/.lodge/ask?to=x",
		k.root() + ".evil.example/.lodge/ask":             "/.lodge/account",
		k.root() + "@evil.example/.lodge/ask":             "/.lodge/account",
		k.root() + "/.lodge/askew":                        "/.lodge/account",
		k.root() + "//evil.example/.lodge/ask":            "/.lodge/account",
		k.root() + "/.lodge/ask\\evil":                    "/.lodge/account",
		k.root() + "/.lodge/ask/../logout":                "/.lodge/account",
		k.root() + "/":                                    "/.lodge/account",
	} {
		if a := k.get(eve, k.root()+"/.lodge/login?"+url.Values{"to": {to}}.Encode()); a.Header.Get("Location") != want {
			t.Errorf("%q leads to %q, want %q", to, a.Header.Get("Location"), want)
		}
	}
	if len(k.site.asks.All()) != 0 {
		t.Errorf("there are requests: %+v", k.site.asks.All())
	}
}

// Requests end with their VM and with who made them.
func TestRequestsEndWithVMsAndPeople(t *testing.T) {
	t.Parallel()
	k, _ := newButtons(t)
	blog := k.vm("blog")
	k.vm("shop")
	eve, ada := k.atRoot(k.eve), k.atRoot(k.ada)
	k.asks(eve, "blog", "")
	k.asks(eve, "shop", "")
	k.asks(ada, "shop", "")
	gatewaytest.Must(t, k.server.Remove(t.Context(), blog.ID))
	if all := k.site.asks.All(); len(all) != 2 {
		t.Errorf("without blog: %+v", all)
	}
	_, err := k.people.Remove(t.Context(), k.eve.Mail)
	gatewaytest.Must(t, err)
	if all := k.site.asks.All(); len(all) != 1 || all[0].Person != k.ada.ID {
		t.Errorf("without Eve: %+v", all)
	}
}
