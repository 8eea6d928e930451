package https_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https/login/passkey"
	"lodge/https/names"
	"lodge/https/pages"
)

// everyPage returns the gateway's own pages for a VM, by a name for a file.
func everyPage(vm string) map[string]pages.Page {
	rt := names.Route{
		Name: names.Name{Host: "8080-" + vm + ".lodge.localhost", VMName: vm, Plain: vm + ".lodge.localhost", Port: 8080},
		VM:   gateway.VM{Identity: gateway.Identity{ID: gateway.ID{1}, Name: vm}},
	}
	plain := rt
	plain.Port, plain.Host = gateway.DefaultPort, rt.Plain
	var open []pages.Link
	for _, port := range []int{22, 5432, 8000, 9090, 11434} {
		open = append(open, pages.Link{Text: fmt.Sprintf("port %d", port), URL: "https://lodge.localhost"})
	}
	return map[string]pages.Page{
		"misdirected": pages.Misdirected(), "not-found": pages.NotFound(), "slow-body": pages.SlowBody(), "not-a-proxy": pages.NotAProxy(),
		"too-many-cookies": pages.TooManyCookies(), "header-too-large": pages.HeaderTooLarge(), "bad-body": pages.BadBody(),
		"bad-request-line": pages.BadRequestLine(), "internal-error": pages.InternalError(), "private": pages.Private(rt, "https://lodge.localhost", "https://lodge.localhost"), "denied-to-vm": pages.DeniedToVM(rt),
		"cross-site": pages.CrossSite(rt), "login": pages.LoginButton(rt, "abc"), "joining": pages.Joining(rt, "/", "https://"+rt.Plain),
		"logout": pages.LogoutButton(rt), "logged-out": pages.LoggedOut(rt), "link-used": pages.LinkUsed(rt), "login-failed": pages.LoginFailed(rt),
		"stopped": pages.Stopped(rt, false, "/"), "stopped-owner": pages.Stopped(rt, true, "/"), "started": pages.Started(rt, "/"),
		"not-started": pages.NotStarted(rt, 507, gateway.Errorf(gateway.KindNoSpace, "no memory is left for this VM").WithHint("Stop another one: lodge stop NAME"), "/"),
		"starting":    pages.Starting(rt), "too-many": pages.TooMany(rt),
		"busy": pages.Busy(rt), "no-answer": pages.NoAnswer(rt), "bad-answer": pages.BadAnswer(rt), "nothing-listens": pages.NothingListens(rt, false, nil),
		"nothing-listens-owner": pages.NothingListens(rt, true, open), "nothing-listens-plain": pages.NothingListens(plain, true, open),
		"root": pages.Root("lodge.localhost", false), "root-logged-in": pages.Root("lodge.localhost", true), "ways": pages.Ways([]string{"example", "work"}, "https://"+rt.Plain+"/"), "apex-link": pages.ApexLink("abc"),
		"apex-link-used": pages.ApexLinkUsed(), "continue": pages.Continue("example", "https://accounts.example.com/"), "refused": pages.Refused(longAddress(), "https://lodge.localhost"),
		"ask": pages.Ask(rt.Host, "https://"+rt.Host+"/", longAddress(), ""), "ask-stranger": pages.Ask(rt.Host, "https://"+rt.Host+"/", "", "https://lodge.localhost"),
		"asked": pages.Asked("https://"+rt.Host+"/", true), "asked-stranger": pages.Asked("https://"+rt.Host+"/", false),
		"requests": pages.Requests(account(vm).Requests), "no-requests": pages.Requests(nil),
		"approved": pages.Approved(account(vm).Requests[0], vm), "denied": pages.Denied(),
		"link": pages.LinkButton(rt, "abc"), "link-ended": pages.LinkEnded(), "bad-token": pages.BadToken(rt),

		"failed":  pages.Failed(403, gateway.Errorf(gateway.KindDenied, "this passkey was refused").WithHint("Try again."), "/"),
		"account": pages.AccountOf(account(vm)), "account-new": pages.AccountOf(pages.Account{Address: longAddress()}), "account-stale": pages.AccountOf(pages.Account{Address: "ann@example.org", Stale: true}), "too-many-wrong": pages.TooManyWrong(),
	}
}

// longAddress is a mail address that is wider than a phone.
func longAddress() string { return strings.Repeat("a", 60) + "@example.org" }

// account is one with passkeys and sessions, of somebody who manages VMs.
func account(name string) pages.Account {
	a := pages.Account{Address: longAddress()}
	for i := range 2 {
		a.Pages = append(a.Pages, pages.Row{Title: name + ".lodge.localhost", URL: "https://lodge.localhost", Note: []string{"", "stopped"}[i]})
		a.Requests = append(a.Requests, pages.Request{
			ID: "00", Address: []string{longAddress(), "ada@example.com"}[i], Host: "8000-" + name + ".lodge.localhost",
			Note: "asked 2026-11-28 from 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", Proven: i > 0,
		})
	}
	for i := range 3 {
		a.Passkeys = append(a.Passkeys, pages.Item{ID: "AA", Name: name, Note: "made 2026-11-28, last used never"})
		a.Sessions = append(a.Sessions, pages.Item{
			ID: "00", Name: "Firefox on Linux", Note: "by passkey since 2026-11-28, last used 2026-11-28 from 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", This: i == 0,
		})
	}
	return a
}

// everyPage has each function of package pages that returns a page.
func TestEveryPageIsShown(t *testing.T) {
	own, err := os.ReadFile("phone_test.go")
	gatewaytest.Must(t, err)
	files, err := filepath.Glob("pages/*.go")
	gatewaytest.Must(t, err)
	found := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		gatewaytest.Must(t, err)
		for _, match := range regexp.MustCompile(`(?m)^func ([A-Z]\w*)\(.*\) Page \{$`).FindAllSubmatch(source, -1) {
			found++
			if !bytes.Contains(own, []byte("pages."+string(match[1])+"(")) {
				t.Errorf("everyPage lacks %s", match[1])
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d pages were found", found)
	}
}

// TestPagesFit shows every page of the gateway in a phone's width and in a wide window, in light and
// in dark colours: nothing is wider than the window, and what is written has contrast enough to be
// read (WCAG 2.2, 1.4.3).
func TestPagesFit(t *testing.T) {
	t.Parallel()
	ctx := chromium(t, newSite(t))
	renderer, err := pages.New(passkey.Script, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, vm := range []string{"blog", strings.Repeat("m", gateway.MaxNameBytes)} {
		all := everyPage(vm)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			page := all[strings.TrimPrefix(r.URL.Path, "/")]
			page.Refresh, page.Next = min(1, page.Refresh)*3600, "" // not while the test looks at it
			renderer.Render(w, r, page)
		}))
		t.Cleanup(server.Close)
		for name := range all {
			if err := chromedp.Do(ctx, chromedp.Navigate(server.URL+"/"+name)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, width := range []int64{360, 1200} {
				for _, scheme := range []string{"light", "dark"} {
					shown(ctx, t, width, scheme)
					checkFits(ctx, t, fmt.Sprintf("%s-%s-%d-%s", name, vm[:1], width, scheme))
				}
			}
		}
	}
}

// shown sets the window's width and the colours that its user prefers.
func shown(ctx context.Context, t *testing.T, width int64, scheme string) {
	t.Helper()
	err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 640))
	if err == nil {
		_, err = chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fitScript returns what is wrong with the page that is shown.
const fitScript = `(() => {
	const wrong = []
	const root = document.documentElement
	if (root.scrollWidth > innerWidth) wrong.push("is " + root.scrollWidth + " pixels wide of " + innerWidth)
	const rgb = text => text.match(/[\d.]+/g).map(Number)
	const light = colour => {
		const [r, g, b] = rgb(colour).map(c => c / 255 <= .04045 ? c / 255 / 12.92 : ((c / 255 + .055) / 1.055) ** 2.4)
		return .2126 * r + .7152 * g + .0722 * b
	}
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some(n => n.nodeType == Node.TEXT_NODE && n.textContent.trim())) continue
		let behind = e
		while (rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement
		const both = [light(getComputedStyle(e).color), light(getComputedStyle(behind).backgroundColor)].sort((a, b) => b - a)
		const ratio = (both[0] + .05) / (both[1] + .05)
		if (ratio < 4.5) wrong.push(e.tagName + " has a contrast of " + ratio.toFixed(2))
	}
	return wrong.join("; ")
})()`

func checkFits(ctx context.Context, t *testing.T, shot string) {
	t.Helper()
	wrong, err := chromedp.Run(ctx, chromedp.Evaluate[string](fitScript))
	if err != nil || wrong != "" {
		t.Errorf("%s: %s (%v)", shot, wrong, err)
	}
	shoot(ctx, t, shot)
}
