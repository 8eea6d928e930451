package storage

import (
	"fmt"
	"testing"

	"lodge/gateway"
)

// denies is a policy that denies an action on a resource of the bucket box under a condition.
func denies(action, resource, condition string) string {
	return policyOf(readAll, fmt.Sprintf(`{"Effect": "Deny", "Principal": "*", "Action": "s3:%s", "Resource": "arn:aws:s3:::box%s", "Condition": {%s}}`, action, resource, condition))
}

// The conditions of a policy bind the page of a bucket as they bind the same list of S3.
func TestListingPageConditions(t *testing.T) {
	g, o := peopled(t)
	g.share(t, "box", gateway.People)
	for condition, denied := range map[string][]string{
		`"StringLike": {"s3:prefix": "dir/*"}`:                  {"/?prefix=dir%2F"},
		`"StringNotLike": {"s3:prefix": "dir/*"}`:               {"/", "/?prefix=other%2F"},
		`"StringEquals": {"s3:delimiter": "/"}`:                 {"/", "/?prefix=dir%2F", "/?prefix=other%2F"},
		`"NumericGreaterThan": {"s3:max-keys": "10"}`:           {"/", "/?prefix=dir%2F", "/?prefix=other%2F"},
		`"StringLike": {"aws:UserAgent": "Go-*"}`:               {"/", "/?prefix=dir%2F", "/?prefix=other%2F"},
		`"StringLike": {"aws:Referer": "https://evil.example"}`: nil,
	} {
		g.doBody(t, "PUT", "/box?policy", denies("ListBucket", "", condition)).want(t, condition, 204)
		want := map[string]int{"/": 200, "/?prefix=dir%2F": 200, "/?prefix=other%2F": 200}
		for _, path := range denied {
			want[path] = 401
		}
		for _, level := range []string{"view", "use"} {
			for path, status := range want {
				o.ask(t, "GET", "box.blog.s3", path, "Accept", "text/html", "Level", level).want(t, condition+" "+path+" "+level, status)
			}
		}
	}
}

// What a policy denies to a sender is denied in forms and error documents too.
func TestSenderConditions(t *testing.T) {
	g, o := peopled(t)
	const at, origin = "http://box.blog.s3.lodge.localhost", "https://box.blog.s3.lodge.localhost"
	for _, condition := range []string{`"StringLike": {"aws:UserAgent": "Go-*"}`, `"StringEquals": {"aws:Referer": "https://a.example/"}`, `"StringNotLike": {"aws:UserAgent": "curl*"}`} {
		g.doBody(t, "PUT", "/box?policy", denies("PutObject", "/*", condition)).want(t, condition, 204)
		o.form(t, at+uploadURL(""), "f", nil, "Origin", origin, "Level", "use", "Referer", "https://a.example/").want(t, condition, 403)
	}
	g.doBody(t, "PUT", "/box?policy", denies("PutObject", "/*", `"StringEquals": {"aws:Referer": "https://a.example/"}`)).want(t, "set", 204)
	o.form(t, at+uploadURL(""), "f", nil, "Origin", origin, "Level", "use", "Referer", at+"/").want(t, "another referer", 303)
	g.send(t, "PUT", "/box/error.html", "", "sorry", map[string]string{"Content-Type": "text/html"}).want(t, "put", 200)
	g.doBody(t, "PUT", "/box?website", siteXML).want(t, "website", 200)
	g.share(t, "box", gateway.Public)
	g.doBody(t, "PUT", "/box?policy", denies("GetObject", "/*", `"StringEquals": {"aws:Referer": "https://a.example/"}`)).want(t, "set", 204)
	if got := o.ask(t, "GET", "box.blog.s3", "/none", "Level", "view"); got.status != 404 || got.body != "sorry" {
		t.Errorf("the error document: %d %s", got.status, got.body)
	}
	if got := o.ask(t, "GET", "box.blog.s3", "/none", "Level", "view", "Referer", "https://a.example/"); got.status != 403 || got.body == "sorry" {
		t.Errorf("denied: %d %s", got.status, got.body)
	}
}
