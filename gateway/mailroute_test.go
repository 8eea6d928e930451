package gateway_test

import (
	"testing"

	"lodge/gateway"
)

func TestParseMailRoute(t *testing.T) {
	for text, want := range map[string]gateway.MailRoute{
		"":                       {Scheme: "maildir", Port: 22},
		"auto":                   {Scheme: "maildir", Port: 22},
		"maildir":                {Scheme: "maildir", Port: 22},
		"smtp":                   {Scheme: "smtp", Port: 25},
		"lmtp":                   {Scheme: "lmtp", Port: 24},
		"http://8080":            {Scheme: "http", Port: 8080, Path: "/"},
		"http://08080/":          {Scheme: "http", Port: 8080, Path: "/"},
		"http://80/a/b?key=x%20": {Scheme: "http", Port: 80, Path: "/a/b?key=x%20"},
		"s3://mail":              {Scheme: "s3", Bucket: "mail"},
		"s3://mail/":             {Scheme: "s3", Bucket: "mail"},
		"s3://my-mail/in/x-":     {Scheme: "s3", Bucket: "my-mail", Path: "in/x-"},
		"http://1//b":            {Scheme: "http", Port: 1, Path: "//b"},
	} {
		got, err := gateway.ParseMailRoute(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := gateway.ParseMailRoute(got.String()); err != nil || again != got {
			t.Errorf("%q: %q is %+v, %v", text, got, again, err)
		}
	}
	for _, text := range badRoutes {
		if got, err := gateway.ParseMailRoute(text); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

var badRoutes = []string{
	"MAILDIR", "pop3", "http://", "http:///x", "http://0/", "http://65536/", "http://-1/", "http://+1/", "http://localhost/", "http://10.0.0.1:80/", "http://80:80/",
	"https://443/", "http://80/a b", "http://80/a\r\nb", "http://80/#x", "http://80/ü", "http://80/%zz", "http://80\\x", "http://80@evil/", "http://80?x", "bucket",
	"s3://", "s3:///x", "s3://ab/", "s3://Mail/", "s3://mail/a b", "s3://mail/\n", "s3://-mail/", "s3://ma_il/", "S3://mail/",
}

// Whatever is a route has the VM's own address alone, and one line.
func FuzzMailRoute(f *testing.F) {
	for _, text := range append(badRoutes, "http://80/a?b", "smtp", "s3://mail/in/") {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := gateway.ParseMailRoute(text)
		if err != nil {
			return
		}
		if r.Scheme == "http" && (r.Port == 0 || r.Path == "" || r.Path[0] != '/') {
			t.Errorf("%q: %+v", text, r)
		}
		for _, c := range []byte(r.String()) {
			if c <= ' ' || c > '~' {
				t.Errorf("%q: %q", text, r)
			}
		}
		if again, err := gateway.ParseMailRoute(r.String()); err != nil || again != r {
			t.Errorf("%q: %q is %+v, %v", text, r, again, err)
		}
	})
}
