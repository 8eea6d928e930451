package cli

import (
	"bytes"
	"strings"
	"testing"

	"lodge/gateway/control"
	"lodge/gateway/control/controltest"
)

func TestDomainVerbs(t *testing.T) {
	h := controltest.Start(t)
	h.Add(t, "blog")
	run := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		err := Run(t.Context(), control.NewClient(h.Socket), args, Stdio{strings.NewReader(""), &out, &out})
		if err != nil {
			out.WriteString("exit " + string(rune('0'+ExitCode(err))))
		}
		return out.String()
	}
	h.DNS.Set(t, "www.certified.example. CNAME blog.lodge.localhost.")
	for _, step := range []struct{ args, want string }{
		{"domain ls", "No domains. Add one: lodge domain add VM www.example.com\n"},
		{"domain add blog www.example.com", "CNAME blog.lodge.localhost.\n  _lodge.www.example.com. TXT \"lodge-vm="},
		{"domain add blog www.example.com", "exit 1"},
		{"domain add blog *.com", "exit 2"},
		{"domain add blog www.certified.example --port 8080", "https://www.certified.example leads to port 8080 of blog.\n"},
		{"domain ls blog", "www.certified.example  port 8080 of blog  https://www.certified.example\n"},
		{"domain ls --json", `[{"vm":"blog","name":"www.certified.example","port":8080,"url":"https://www.certified.example"}]`},
		{"show blog", "  www.certified.example (port 8080)\n"},
		{"ls", "https://blog.lodge.localhost  www.certified.example (port 8080)\n"},
		{"share blog 8080 public", "https://8080-blog.lodge.localhost is public.\nwww.certified.example is public.\n"},
		{"share blog public", "https://blog.lodge.localhost is public.\n"},
		{"domain add blog www.certified.example --passthrough", "https://www.certified.example leads to port 443 of blog, which ends TLS itself.\nNothing listens"},
		{"domain add blog *.certified.example --passthrough", "*.certified.example is a wildcard, which cannot be passed through\n"},
		{"domain ls", "port 443 of blog, which ends TLS itself  https://www.certified.example\n"},
		{"domain ls --json", `"port":443,"passthrough":true,`},
		{"ls", "www.certified.example (port 443, passthrough)\n"},
		{"share blog 443 private", "https://443-blog.lodge.localhost is private.\n"},
		{"mail dns blog", "blog has no domain for mail\n"},
		{"domain add blog www.certified.example --mail", "goes to blog, once DNS has these records: lodge mail dns blog\n"},
		{"domain ls", "blog, with mail"},
		{"ls", "www.certified.example (mail)\n"},
		{"mail set blog", "anything@www.certified.example\n"},
		{"mail dns blog", "www.certified.example. MX 10 lodge.localhost.\n"},
		{"domain rm www.certified.example", "www.certified.example is removed.\n"},
		{"domain rm www.certified.example", "lodge domain ls lists the domains.\nexit 1"},
	} {
		if got := run(strings.Fields(step.args)...); !strings.Contains(got, step.want) {
			t.Errorf("lodge %s: %q, want %q", step.args, got, step.want)
		}
	}
}
