package https_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https/trust"
)

// chromium starts a browser in which package trust has installed the site's root.
func chromium(t *testing.T, s *site) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: apt-get install chromium libnss3-tools", err)
	}
	home := t.TempDir()
	stores := trust.Stores{Homes: []string{home}, SystemDir: filepath.Join(home, "system"), Update: []string{"true"}}
	if _, err := stores.Install(t.Context(), s.server.RootPEM()); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.Env("HOME="+home), chromedp.UserDataDir(filepath.Join(home, "profile")), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.WindowSize(900, 700), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-proxy-server", true))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	if err := chromedp.Do(ctx); err != nil { // starts it, until ctx ends
		t.Fatalf("start chromium: %v", err)
	}
	t.Cleanup(func() { cancelBrowser(); cancelAllocator(); cancel() })
	return ctx
}

// shoot writes a screenshot to the directory LODGE_ARTEFACTS, if that is set.
func shoot(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("LODGE_ARTEFACTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Errorf("screenshot %s: %v", name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		t.Error(err)
	}
}

func TestChromium(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog", public(7070)...)
	off, err := s.dir.Update(t.Context(), s.vm("off", public(0)...).ID, func(m *gateway.VM) error { m.Desired = gateway.Stopped; return nil })
	if err != nil {
		t.Fatal(err)
	}
	page := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "<title>%s</title><h1>%s for %s</h1>", name, name, r.Header.Get("X-Lodge-User"))
		})
	}
	app := s.app(blog, 80, page("app"))
	s.app(blog, 8080, page("port"))
	ctx := chromium(t, s)

	visit := func(shot, url, want string, more ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		steps := append(append([]chromedp.Action[chromedp.Void]{chromedp.Navigate(url)}, more...), chromedp.WaitVisible(chromedp.CSS("h1")))
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := chromedp.Do(limited, steps...); err != nil {
			shoot(ctx, t, "failed-"+shot)
			t.Fatalf("%s: %v", shot, err)
		}
		gatewaytest.WaitFor(t, shot+": "+want, func() bool { // after the page that joins names
			text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("h1")?.innerText ?? ""`))
			return err == nil && strings.Contains(text, want)
		})
		shoot(ctx, t, shot)
	}
	visit("private", s.url("blog"), "Nothing here that you may see")
	visit("private-port", s.url("8080-blog"), "Nothing here that you may see")
	link := s.link(blog)
	visit("link", link, "Open blog")
	visit("app", link, "app for "+owner, chromedp.Click(chromedp.CSS("button")), chromedp.WaitNotPresent(chromedp.CSS("form")))
	visit("port", s.url("8080-blog")+"/x", "port for "+owner)
	visit("any", s.url("any.blog"), "app for "+owner)
	visit("used-up", link, "This link is no longer valid")
	visit("stopped", s.url("off"), off.Name+" is stopped")
	app.Close()
	s.login(s.client(), blog)
	gatewaytest.WaitFor(t, "the port is removed", func() bool { port, _ := s.server.Probe(t.Context(), blog); return port == 8080 })
	visit("silent-port", s.url("9999-blog"), "Nothing listens on port 9999")
	visit("silent-public", s.url("7070-blog"), "Nothing listens on port 7070")
	visit("root", strings.Replace(s.url("x"), "//x.", "//", 1), "Lodge")

	// The page "Nothing listens" reloads by itself.
	visit("before", s.url("3000-blog"), "Nothing listens on port 3000")
	s.app(blog, 3000, page("late"))
	gatewaytest.WaitFor(t, "the page opens by itself", func() bool {
		title, err := chromedp.Run(ctx, chromedp.Title())
		return err == nil && title == "late"
	})
}
