package storage

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// chromium starts a browser whose requests have a level.
func chromium(t *testing.T, level gateway.Level) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: apt-get install chromium", err)
	}
	home := t.TempDir()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Env("HOME="+home),
		chromedp.UserDataDir(filepath.Join(home, "profile")), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	t.Cleanup(func() { cancelBrowser(); cancelAllocator(); cancel() })
	gatewaytest.Must(t, chromedp.Do(ctx)) // starts it, until ctx ends
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	gatewaytest.Must(t, err)
	_, err = chromedp.Call(ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Level": string(level)}})
	gatewaytest.Must(t, err)
	return ctx
}

// A browser uploads by the page's form: what it sends of the page's origin lets it act as the
// visitor.
func TestUploadInChromium(t *testing.T) {
	h := newHostWith(t, func(c *Config) { c.Logins = logins{c.Directory} })
	g := h.guest("blog")
	g.do(t, "PUT", "/box", nil).want(t, "make", 200)
	at, err := url.Parse(h.serve(h.OutsideHandler(), noVM()))
	gatewaytest.Must(t, err)
	at.Host = "box.blog.s3.lodge.localhost:" + at.Port()
	file := filepath.Join(t.TempDir(), "a b.txt")
	gatewaytest.Must(t, os.WriteFile(file, []byte("content"), 0o600))
	ctx := chromium(t, gateway.Use)
	input := chromedp.CSS("input[type=file]")
	gatewaytest.Must(t, chromedp.Do(ctx, chromedp.Navigate(at.String()+"/?prefix=dir%2F"), chromedp.WaitVisible(input), chromedp.SetUploadFiles(input, []string{file})))
	gatewaytest.Must(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS("form button"))))
	gatewaytest.WaitFor(t, "the upload", func() bool { return g.do(t, "GET", "/box/dir/a%20b.txt", nil).body == "content" })
}
