package e2e

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/chromedp"

	"lodge/e2e/harness"
	"lodge/gateway/gatewaytest"
)

// chromium is a browser that trusts the authority by lodge trust. It ends with the test.
func (s *suite) chromium(t *testing.T) context.Context {
	t.Helper()
	s.h.OwnPasswd(t) // lodge trust reads it
	s.h.Lodge(t, "trust")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // it runs as root here
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Env("HOME="+s.h.Home), // where lodge trust has put the root
		chromedp.WindowSize(1000, 900),
		chromedp.WSURLReadTimeout(2*time.Minute), // the VMs share the processors
	)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 8*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// browser: Chromium trusts the authority after lodge trust, logs in with a one-time link, and sees
// alpha's page.
func (s *suite) browser(t *testing.T) {
	ctx := s.chromium(t)
	if r := s.h.Run(t, nil, "curl", "-sS", "-o", "/dev/null", "-w", "%{ssl_verify_result}", s.alpha.Info(t).URL+"/"); r.Stdout != "0" {
		t.Errorf("curl after lodge trust: %s", r.Text())
	}
	link := harness.JSON[struct{ URL string }](t, s.h, "open", "alpha").URL
	if err := chromedp.Do(ctx, chromedp.Navigate(link)); err != nil {
		t.Fatalf("open the link: %v", err)
	}
	page, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS("button")))
	if err != nil || page.Status != http.StatusOK || page.SecurityState != security.StateSecure {
		t.Fatalf("press the button: %+v, %v", page, err)
	}
	gatewaytest.WaitFor(t, "the app's page opens, after the page that joins names", func() bool {
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body?.innerText ?? ""`))
		return err == nil && strings.Contains(text, owner)
	})
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatalf("take a picture: %v", err)
	}
	file := harness.Artefact(t, "hello.png")
	if err := os.WriteFile(file, picture, 0o644); err != nil { //nolint:gosec // for people to look at
		t.Fatal(err)
	}
	t.Logf("screenshot: %s (%d bytes)", file, len(picture))
}
