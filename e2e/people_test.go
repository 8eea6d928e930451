package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"lodge/e2e/harness"
	"lodge/gateway/gatewaytest"
)

// visitors are who looks at the pages, by a short name: the owner, two guests, and nobody in particular.
func visitors() map[string]string {
	return map[string]string{"owner": owner, "ada": "ada@example.com", "bob": "bob@example.net", "nobody": ""}
}

// cell is one port of a VM, and who of visitors sees its page.
type cell struct {
	vm     string
	port   int
	seenBy string
}

// cells is the table of who sees what, after let.
func cells() []cell {
	return []cell{
		{"alpha", 7001, "owner"},
		{"alpha", 7002, "owner ada"},
		{"alpha", 7003, "owner bob"},
		{"alpha", 7004, "owner ada"},
		{"alpha", 7005, "owner ada bob nobody"},
		{"beta", 7001, "owner ada"},
		{"beta", 7002, "owner ada bob"},
		{"beta", 7005, "owner ada"}, // alpha's is public
	}
}

func (c cell) seen(who string) bool { return slices.Contains(strings.Fields(c.seenBy), who) }

func (c cell) host(s *suite) string { return fmt.Sprintf("%d-%s.%s", c.port, c.vm, s.h.Domain) }

// let shares ports of alpha with people, a domain of addresses, a team and everyone; of beta it shares one,
// and grants all to Ada.
func (s *suite) let(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"share", "alpha", "--port", "7002", "people", "ada@example.com"},
		{"share", "alpha", "--port", "7003", "people", "@example.net"},
		{"team", "add", "devs", "ada@example.com"},
		{"share", "alpha", "--port", "7004", "team", "devs"},
		{"share", "alpha", "--port", "7005", "public"},
		{"share", "beta", "--port", "7002", "people", "bob@example.net"},
		{"grant", "beta", "ada@example.com", "view"},
	} {
		s.h.Lodge(t, args...)
	}
}

// unlet takes back what let has given.
func (s *suite) unlet(t *testing.T) {
	t.Helper()
	for _, vm := range []string{"alpha", "beta"} {
		for _, port := range []string{"7002", "7003", "7004", "7005"} {
			s.h.Lodge(t, "share", vm, "--port", port, "private")
		}
	}
	s.h.Lodge(t, "team", "rm", "devs")
	for _, guest := range []string{"ada@example.com", "bob@example.net"} {
		s.h.Lodge(t, "person", "rm", guest) // with their grants
	}
}

// people: two VMs, three people and a stranger: the table of who sees what, walked whole by curl and in
// Chromium.
func (s *suite) people(t *testing.T) {
	s.both(t, func(t *testing.T, me, _ *harness.VM) {
		me.PutFile(t, "/home/lodge/ports.py", "testdata/web.py", "644")
		me.Run(t, `sudo systemd-run --quiet --unit=ports python3 /home/lodge/ports.py 7001 7002 7003 7004 7005
			for port in 7001 7002 7003 7004 7005; do until curl -s -o /dev/null http://127.0.0.1:$port/; do sleep 0.2; done; done`)
	})
	s.let(t)
	defer s.unlet(t) // the context of a cleanup has ended
	for who, mail := range visitors() {
		t.Run("curl as "+who, func(t *testing.T) { s.walk(t, who, mail) })
	}
	ctx := s.chromium(t)
	for who, mail := range visitors() {
		t.Run("Chromium as "+who, func(t *testing.T) { s.look(ctx, t, who, mail) })
	}
}

// apexLink is a link that logs somebody in at the domain itself.
func (s *suite) apexLink(t *testing.T, mail string) string {
	t.Helper()
	args := []string{"open"}
	if mail != owner {
		args = append(args, "--as", mail)
	}
	return harness.JSON[struct{ URL string }](t, s.h, args...).URL
}

// walk opens every cell by curl, with the cookies of one visitor: first as a tab, which fetches a login from
// the domain, and then as a program, which gets the page or is refused: with 403 where it is
// logged in, else with 401.
func (s *suite) walk(t *testing.T, who, mail string) {
	t.Helper()
	jar := filepath.Join(t.TempDir(), "cookies")
	curl := func(args ...string) string {
		t.Helper()
		r := s.h.Run(t, nil, "curl", append([]string{"-sS", "-m", "60", "--cacert", s.rootPEM, "-b", jar, "-c", jar}, args...)...)
		if r.Code != 0 {
			t.Fatalf("curl %s ended with %d: %s", strings.Join(args, " "), r.Code, r.Text())
		}
		return r.Stdout
	}
	if mail != "" {
		link, token, _ := strings.Cut(s.apexLink(t, mail), "?token=")
		if got := curl("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-d", "token="+token, link); got != "303 https://"+s.h.Domain+"/.lodge/account" {
			t.Fatalf("%s logs in: %s", who, got)
		}
	}
	for _, c := range cells() {
		page := "https://" + c.host(s) + "/"
		tab := curl("-L", "--max-redirs", "20", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Sec-Fetch-Site: none", "-H", "Sec-Fetch-Mode: navigate",
			"-H", "Sec-Fetch-Dest: document", "-H", "Accept: text/html", page)
		got := curl("-w", "%{http_code}", page)
		want, refused := "401", []string{"401"}
		if mail != "" {
			want, refused = "403", []string{"401", "403"} // a program has a session only where a tab got one
		}
		switch {
		case c.seen("nobody"): // the app sees whoever has a session at this name
			want, got = "200", got[max(0, len(got)-3):]
		case c.seen(who):
			want = c.host(s) + " " + mail + " None\n200"
		default:
			if got = got[max(0, len(got)-3):]; slices.Contains(refused, got) {
				got = want
			}
		}
		if got != want || tab != want[len(want)-3:] {
			t.Errorf("%s at %s gets %s in a tab, and %q, want %q", who, c.host(s), tab, got, want)
		}
	}
}

// look opens every cell in a tab of Chromium, which has the cookies of one visitor alone.
func (s *suite) look(ctx context.Context, t *testing.T, who, mail string) {
	t.Helper()
	_, err := chromedp.Call(ctx, network.ClearBrowserCookies, cdp.Empty{})
	gatewaytest.Must(t, err)
	if mail != "" {
		gatewaytest.Must(t, chromedp.Do(ctx, chromedp.Navigate(s.apexLink(t, mail)), chromedp.Click(chromedp.CSS("form button"))))
		shows(ctx, t, "the account", "logged in as "+mail)
	}
	for _, c := range cells() {
		gatewaytest.Must(t, chromedp.Do(ctx, chromedp.Navigate("https://"+c.host(s)+"/")))
		want := "Nothing here that you may see"
		switch {
		case c.seen("nobody"):
			want = c.host(s) + " "
		case c.seen(who):
			want = c.host(s) + " " + mail + " None"
		}
		shows(ctx, t, who+" at "+c.host(s), want)
	}
}

// shows waits until the page has a text: a browser gets to it by others.
func shows(ctx context.Context, t *testing.T, what, want string) {
	t.Helper()
	text := ""
	defer func() {
		if t.Failed() {
			t.Logf("the page: %s", text)
		}
	}()
	gatewaytest.WaitFor(t, what+": "+want, func() bool {
		var err error
		text, err = chromedp.Run(ctx, chromedp.Evaluate[string](`document.body?.innerText ?? ""`))
		return err == nil && strings.Contains(text, want)
	})
}
