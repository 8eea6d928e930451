package main

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// bucketHost is a daemon whose objects are written, with the VM alpha, which is off.
type bucketHost struct{ *lodged }

func newBucketHost(t *testing.T) bucketHost {
	t.Helper()
	h := bucketHost{newLodged(t)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.objects.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		gatewaytest.Must(t, <-ended)
	})
	h.share(t, gateway.Share{Visibility: gateway.Private})
	return h
}

// browser is a browser of somebody who is logged in at the domain; of a stranger if the address is
// "".
func (h bucketHost) browser(t *testing.T, address string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	gatewaytest.Must(t, err)
	c := &http.Client{Jar: jar, Transport: h.stranger.Transport}
	if address == "" {
		return c
	}
	who, _ := h.state.people.ByMail(address)
	link, err := h.web.LoginURL(t.Context(), gateway.ID{}, who.ID)
	gatewaytest.Must(t, err)
	u, err := url.Parse(link)
	gatewaytest.Must(t, err)
	form := url.Values{"token": {u.Query().Get("token")}}.Encode()
	u.RawQuery = ""
	h.send(t, c, http.MethodPost, u.String(), strings.NewReader(form), "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://"+u.Host)
	return c
}

func (h bucketHost) send(t *testing.T, c *http.Client, method, address string, body io.Reader, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, body)
	gatewaytest.Must(t, err)
	r.Header.Set("Accept", "text/html")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if method == http.MethodGet {
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
	}
	res, err := c.Do(r)
	gatewaytest.Must(t, err)
	text, err := io.ReadAll(res.Body)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, res.Body.Close())
	return res.StatusCode, string(text)
}

func (h bucketHost) share(t *testing.T, share gateway.Share, grants ...gateway.Grant) {
	t.Helper()
	_, err := h.state.directory.Update(t.Context(), h.vms["alpha"].ID, func(m *gateway.VM) error {
		*m = m.Reshare("photos", share)
		m.Grants, m.Desired = grants, gateway.Stopped
		return nil
	})
	gatewaytest.Must(t, err)
}

// upload posts a file as the form of the bucket's page does, from a page at origin.
func (h bucketHost) upload(t *testing.T, c *http.Client, at, origin string) (int, string) {
	t.Helper()
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	part, err := m.CreateFormFile("file", "a.txt")
	gatewaytest.Must(t, err)
	_, err = part.Write([]byte("content"))
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, m.Close())
	return h.send(t, c, http.MethodPost, at+"?upload=&prefix=", &body, "Content-Type", m.FormDataContentType(), "Origin", origin)
}

// People log in, list, read and upload in a browser while the VM is off, each as far as they may.
func TestBucketInABrowser(t *testing.T) {
	h := newBucketHost(t)
	for _, address := range []string{"ada@example.com", "bob@example.com", "eve@example.com"} {
		_, _, err := h.state.people.Add(t.Context(), address, "")
		gatewaytest.Must(t, err)
	}
	ada, _ := h.state.people.ByMail("ada@example.com")
	bob, _ := h.state.people.ByMail("bob@example.com")
	h.share(t, gateway.Share{Visibility: gateway.People, With: []gateway.Principal{ada.ID}}, gateway.Grant{To: bob.ID, Level: gateway.Use})
	at := "https://photos.alpha.s3." + h.cfg.Domain + ":" + strconv.Itoa(h.cfg.HTTPSPort) + "/"
	origin := strings.TrimSuffix(at, "/")
	adas, bobs, eves, strangers := h.browser(t, ada.Mail), h.browser(t, bob.Mail), h.browser(t, "eve@example.com"), h.browser(t, "")
	h.send(t, bobs, http.MethodGet, at, http.NoBody) // the login comes with it; there is no bucket yet
	if status, text := h.upload(t, bobs, at, strings.Replace(origin, "photos.alpha.s3", "alpha", 1)); status != http.StatusForbidden {
		t.Errorf("an upload from the VM's page: %d %s", status, text)
	}
	if status, text := h.upload(t, bobs, at, origin); status != http.StatusOK || !strings.Contains(text, `href="/a.txt"`) {
		t.Fatalf("an upload: %d %s", status, text)
	}
	for name, c := range map[string]struct {
		browser *http.Client
		status  int
		form    bool
	}{"ada": {adas, 200, false}, "bob": {bobs, 200, true}, "eve": {eves, 403, false}, "a stranger": {strangers, 401, false}} {
		status, page := h.send(t, c.browser, http.MethodGet, at, http.NoBody)
		if status != c.status || strings.Contains(page, `type="file"`) != c.form || strings.Contains(page, "a.txt") != (status == 200) {
			t.Errorf("%s sees %d %s", name, status, page)
		}
		if status, text := h.send(t, c.browser, http.MethodGet, at+"a.txt", http.NoBody); status != c.status || (text == "content") != (status == 200) {
			t.Errorf("%s reads %d %s", name, status, text)
		}
		if !c.form {
			if status, _ := h.upload(t, c.browser, at, origin); status != http.StatusForbidden {
				t.Errorf("%s uploads: %d", name, status)
			}
		}
	}
	h.share(t, gateway.Share{Visibility: gateway.Public})
	if status, text := h.send(t, h.browser(t, ""), http.MethodGet, at+"a.txt", http.NoBody); status != 200 || text != "content" {
		t.Errorf("public: %d %s", status, text)
	}
	h.share(t, gateway.Share{Visibility: gateway.Private})
	for name, c := range map[string]*http.Client{"ada": adas, "bob": bobs} {
		if status, _ := h.send(t, c, http.MethodGet, at+"a.txt", http.NoBody); status != http.StatusForbidden {
			t.Errorf("%s, afterwards: %d", name, status)
		}
	}
}
