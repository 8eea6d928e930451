package relay

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// policyServer serves a policy of far.example by https, with a certificate that the queue trusts.
func policyServer(t *testing.T, text *atomic.Value) (*httptest.Server, func(*Config)) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := text.Load().(string)
		switch {
		case r.Host != "mta-sts.far.example" || r.URL.Path != "/.well-known/mta-sts.txt" || body == "":
			http.NotFound(w, r)
		case body == "redirect":
			http.Redirect(w, r, "/other", http.StatusFound)
		default:
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, body)
		}
	}))
	config, roots := certificate(t, "mta-sts.far.example")
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, func(c *Config) {
		c.roots = roots
		c.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		}
	}
}

const enforced = "version: STSv1\r\nmode: enforce\r\nmx: mx.far.example\r\nmax_age: 86400\r\n"

// A domain that enforces a policy gets mail in TLS, at its servers and with a certificate for them; else
// its mail waits. Without one, or when it only tests it, mail goes as ever.
func TestPolicies(t *testing.T) {
	t.Parallel()
	other, _ := certificate(t, "other.name")
	for name, tt := range map[string]struct {
		policy string
		record string
		sent   bool
	}{
		"wrong certificate": {enforced, "v=STSv1; id=1;", false},
		"another server":    {strings.Replace(enforced, "mx.far", "mx.near", 1), "v=STSv1; id=1;", false},
		"testing":           {strings.Replace(enforced, "enforce", "testing", 1), "v=STSv1; id=1;", true},
		"none":              {strings.Replace(enforced, "enforce", "none", 1), "v=STSv1; id=1;", true},
		"no record":         {enforced, "v=other", true},
		"redirected":        {"redirect", "v=STSv1; id=1;", true},
		"no policy":         {"", "v=STSv1; id=1;", true},
		"broken":            {"mode: enforce\r\n", "v=STSv1; id=1;", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var text atomic.Value
			text.Store(tt.policy)
			_, change := policyServer(t, &text)
			far := new(sink).serve(t, "127.0.0.1", "", other)
			r := start(t, far.port, change, "far.example. MX 0 mx.far.example.", "mx.far.example. A 127.0.0.1", "mta-sts.far.example. A 127.0.0.1",
				`_mta-sts.far.example. TXT "`+tt.record+`"`)
			r.send(t, "one", "x@far.example")
			if tt.sent {
				far.wait(t, 1)
				r.waitEmpty(t)
				return
			}
			gatewaytest.WaitFor(t, "two attempts", func() bool { return r.log.Count("message delayed") > 1 })
			if len(far.all()) != 0 || r.Waiting() != 1 {
				t.Errorf("%d sent", len(far.all()))
			}
		})
	}
}

// The right certificate is enough, and a policy that was fetched counts when its server is gone.
func TestPolicyIsKept(t *testing.T) {
	t.Parallel()
	var text atomic.Value
	text.Store(enforced)
	server, change := policyServer(t, &text)
	config, _ := certificate(t, "mx.far.example")
	far := new(sink).serve(t, "127.0.0.1", "", config)
	records := []string{"far.example. MX 0 mx.far.example.", "mx.far.example. A 127.0.0.1", `_mta-sts.far.example. TXT "v=STSv1; id=1;"`}
	r := start(t, far.port, func(c *Config) {
		change(c)
		c.roots = c.roots.Clone()
		c.roots.AddCert(config.Certificates[0].Leaf)
	}, records...)
	r.send(t, "one", "x@far.example")
	if got := far.wait(t, 1)[0]; !got.tls {
		t.Error("not in TLS")
	}
	r.waitEmpty(t)
	server.Close()
	r.zone.Set(t, records[:2]...)
	if p := r.policies.of(t.Context(), "far.example"); !p.enforce || !p.matches("mx.far.example") {
		t.Errorf("%+v", p)
	}
	r.policies.now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	if p := r.policies.of(t.Context(), "far.example"); p.enforce {
		t.Errorf("an old one: %+v", p)
	}
}

func TestPolicyMatches(t *testing.T) {
	t.Parallel()
	p := policy{mx: []string{"mx.far.example", "*.near.example"}}
	for host, want := range map[string]bool{
		"mx.far.example": true, "a.near.example": true, "near.example": false, "a.b.near.example": false, "far.example": false, "xmx.far.example": false,
	} {
		if p.matches(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

// Whatever a policy has, one that is enforced names servers, and none counts for longer than a year.
func FuzzPolicy(f *testing.F) {
	f.Add(enforced)
	f.Add("version: STSv1\nmode: none\nmax_age: 99999999999\n")
	f.Add("version:STSv1\nmode:enforce\nmx:*.\nmax_age:0")
	f.Fuzz(func(t *testing.T, text string) {
		now := time.Now()
		p, err := parsePolicy(text, now)
		if err == nil && (p.enforce && len(p.mx) == 0 || p.until.After(now.Add(maxPolicyAge)) || p.until.Before(now)) {
			t.Errorf("%+v", p)
		}
	})
}
