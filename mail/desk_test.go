package mail

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func (f *fixture) events(tb testing.TB, id gateway.ID) (all []string) {
	tb.Helper()
	events, err := f.MailLog(tb.Context(), id, 0)
	gatewaytest.Must(tb, err)
	for _, e := range slices.Backward(events) {
		line := fmt.Sprintf("%s <%s> <%s> %s", e.Kind, e.From, e.To, e.Reply)
		if (e.QueueID == "") != (e.Kind == gateway.MailRefused) || e.Time.IsZero() {
			tb.Errorf("%+v", e)
		}
		all = append(all, strings.TrimSpace(line))
	}
	return all
}

// The log of a VM has what it got and what it was refused, with the reply; the operator's what is for no VM.
func TestMailLog(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	_, err := f.directory.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Mail.AllowFrom = []string{"ada@example.com"}; return nil })
	gatewaytest.Must(t, err)
	c, _ := hello(t, f.addr)
	c.send("MAIL FROM:<eve@evil.example>\r\nRCPT TO:<x@blog." + domain + ">\r\nRCPT TO:<x@nobody." + domain + ">\r\nRCPT TO:<x@example.org>\r\nRSET\r\n")
	for _, want := range []string{"250", "550 5.1.1", "550 5.1.1", "550 5.7.1", "250"} {
		c.expect(want)
	}
	c.send("MAIL FROM:<ada@example.com>\r\nRCPT TO:<x@blog." + domain + ">\r\nDATA\r\n")
	c.expect("250")
	c.expect("250")
	c.expect("354")
	c.send("Subject: hello\r\n\r\nx\r\n.\r\n")
	c.expect("250")
	c.send("MAIL FROM:<ada@example.com>\r\nRCPT TO:<x@blog." + domain + ">\r\nDATA\r\n")
	c.expect("250")
	c.expect("250")
	c.expect("354")
	c.send("From: a@b.c\r\nFrom: d@e.f\r\n\r\nx\r\n.\r\n")
	c.expect("554 5.6.0")
	want := []string{
		"refused <eve@evil.example> <x@blog.lodge.localhost> 550 5.1.1 User unknown, or it does not accept mail from you",
		"received <ada@example.com> <x@blog.lodge.localhost>",
	}
	got := f.events(t, blog.ID)
	if diff := cmp.Diff(want, got[:min(2, len(got))]); diff != "" || len(got) != 3 || !strings.HasPrefix(got[2], "refused <ada@example.com> <x@blog.lodge.localhost> 554 5.6.0 ") {
		t.Errorf("%s %q", diff, got)
	}
	if got := f.events(t, shop.ID); len(got) != 0 {
		t.Errorf("of another VM: %q", got)
	}
	if got := f.events(t, gateway.Postmaster().ID); len(got) != 2 || !strings.Contains(got[0], "<x@nobody.lodge.localhost> 550 5.1.1") || !strings.Contains(got[1], "<x@example.org> 550 5.7.1 Relay access denied") {
		t.Errorf("of the operator: %q", got)
	}
}

// A message that is in the VM is delivered into it again; the state and the log show that.
func TestRedeliver(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	closed := false
	site := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if closed {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got = append(got, r.Header.Get("X-Lodge-Queue-Id"))
	})
	l := listen(t)
	server := &http.Server{Handler: site} //nolint:gosec // its client is ours
	go func() { _ = server.Serve(l) }()   // ends with Close
	t.Cleanup(func() { server.Close() })
	f, vm := withRoute(t, "http://8025/", func() string { return l.Addr().String() })
	one, two := f.deliverTo(t, vm, "one"), f.deliverTo(t, vm, "two")
	f.awaitDelivery(t, vm, one)
	f.awaitDelivery(t, vm, two)
	state := func() gateway.MailboxState {
		t.Helper()
		s, err := f.State(t.Context(), vm)
		gatewaytest.Must(t, err)
		return s
	}
	if s := state(); s.Messages != 2 || s.Waiting != 0 || !s.Oldest.IsZero() || s.Bytes == 0 {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	closed = true
	mu.Unlock()
	done, err := f.Redeliver(t.Context(), vm.ID, gateway.MailRedelivery{QueueIDs: []string{two}})
	if err != nil || done.Messages != 1 || f.delivered(t, vm, two) || !f.delivered(t, vm, one) {
		t.Errorf("%+v, %v", done, err)
	}
	if s := state(); s.Waiting != 1 || s.Oldest.IsZero() || age(f.oldestWaiting()) <= 0 {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	closed = false
	mu.Unlock()
	done, err = f.Redeliver(t.Context(), vm.ID, gateway.MailRedelivery{Since: time.Now().Add(-time.Hour)})
	if err != nil || done.Messages != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	f.awaitDelivery(t, vm, one)
	f.awaitDelivery(t, vm, two)
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(got)
	want := []string{one, one, two, two}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the VM got %v, want %v", got, want)
	}
	gatewaytest.Eventually(t, func() error { // the log follows the mailbox
		if events := f.events(t, vm.ID); len(events) != 6 {
			return fmt.Errorf("%d events: %q", len(events), events)
		}
		return nil
	})
	for _, bad := range []struct {
		id gateway.ID
		r  gateway.MailRedelivery
	}{{vm.ID, gateway.MailRedelivery{QueueIDs: []string{one, "none"}}}, {gateway.NewID(), gateway.MailRedelivery{QueueIDs: []string{one}}}, {gateway.Postmaster().ID, gateway.MailRedelivery{Since: time.Now()}}} {
		if _, err := f.Redeliver(t.Context(), bad.id, bad.r); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

// Terms find what they should: text is decoded, all terms must fit, and a word before a colon that is no field is text.
func TestSearch(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm, other := f.add(t, "blog"), f.add(t, "shop")
	put := func(vm gateway.Identity, message string) string {
		t.Helper()
		c, _ := hello(t, f.addr)
		c.mail("a@b.c", message, "250", vm)
		return f.list(t, vm)[0].QueueID
	}
	bill := put(vm, "From: Ada <ada@example.com>\r\nTo: x@y.z\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Transfer-Encoding: base64\r\n\r\naHR0cHM6Ly9leGFtcGxlLmNvbS9iaWxs\r\n")
	news := put(vm, "From: news@example.org\r\nSubject: News of the day\r\n\r\nnothing from ada\r\n")
	put(other, "From: Ada <ada@example.com>\r\nSubject: of another VM\r\n\r\nx\r\n")
	for terms, want := range map[string][]string{
		"ada":                        {news, bill},
		"from:ADA":                   {bill},
		"subject:grüsse":             {bill},
		"https://example.com/bill":   {bill},
		"body:bill|from:ada":         {bill},
		"news|is:waiting|since:1h":   {news},
		"news|is:delivered":          nil,
		"ada|before:2026-01-01":      nil,
		"id:" + bill:                 {bill},
		"ada|id:" + news:             {news},
		"another":                    nil,
		"subject:day|from:ada":       nil,
		"nothing from ada|from:news": {news},
	} {
		found, err := f.Search(t.Context(), vm.ID, strings.Split(terms, "|"), 10)
		gatewaytest.Must(t, err)
		var got []string
		for _, m := range found {
			got = append(got, m.QueueID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", terms, got, want)
		}
	}
	if found, err := f.Search(t.Context(), vm.ID, []string{"ada"}, 1); err != nil || len(found) != 1 || found[0].QueueID != news {
		t.Errorf("at most one: %+v, %v", found, err)
	}
	for _, bad := range [][]string{nil, {""}, {"from:"}, {"is:read"}, {"since:yesterday"}, {strings.Repeat("x", 201)}, make([]string, 21)} {
		if _, err := f.Search(t.Context(), vm.ID, bad, 10); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

// A VM reads its own mail, log and queue, and no other's.
func TestInside(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	f.deliverTo(t, blog, "secret of blog")
	id := f.list(t, blog)[0].QueueID
	ours, theirs := f.posting(t, blog), f.posting(t, shop)
	get := func(url string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		gatewaytest.Must(t, err)
		resp, err := http.DefaultClient.Do(r)
		gatewaytest.Must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		gatewaytest.Must(t, err)
		return resp.StatusCode, string(text)
	}
	for path, want := range map[string]string{
		"": id, "?limit=1": id, "/search?q=secret": id, "/log": `"event":"received"`, "/queue": "[]", "/" + id: "secret of blog",
	} {
		if status, text := get(ours + path); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", path, status, text)
		}
		status, text := get(theirs + path)
		if strings.Contains(text, id) && path != "/"+id || strings.Contains(text, "secret") || (path == "/"+id) != (status == http.StatusNotFound) {
			t.Errorf("another VM, %s: %d %s", path, status, text)
		}
	}
	for path, want := range map[string]int{"?limit=0": 400, "?limit=1001": 400, "/search": 400, "/none": 404, "/log/x": 404, "/..%2fx": 404} {
		if status, text := get(ours + path); status != want {
			t.Errorf("%s: %d %s, want %d", path, status, text, want)
		}
	}
	for body, want := range map[string]int{
		`{"queue_ids": ["` + id + `"]}`: 200, `{"since": "2026-01-01T00:00:00Z"}`: 200, `{"queue_ids": ["none"]}`: 404, `{}`: 400, `{"all": true}`: 400, `x`: 400,
	} {
		status, _, text := post(t, ours+"/redeliver", asJSON, strings.NewReader(body))
		var done gateway.MailRedelivered
		if status != want || status == http.StatusOK && (json.Unmarshal([]byte(text), &done) != nil || done.Messages != 1) {
			t.Errorf("%s: %d %s, want %d", body, status, text, want)
		}
	}
	if status, _, text := post(t, theirs+"/redeliver", asJSON, strings.NewReader(`{"queue_ids": ["`+id+`"]}`)); status != http.StatusNotFound {
		t.Errorf("another VM: %d %s", status, text)
	}
	stranger := gateway.Identity{}
	if status, text := get(f.posting(t, stranger) + "/queue"); status == http.StatusOK {
		t.Errorf("a stranger: %d %s", status, text)
	}
}

// A message that a VM is posting when the server stops is taken in; what comes later is not.
func TestPostAndShutdown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := start(t, dir, nil)
	blog := f.add(t, "blog")
	url := f.posting(t, blog)
	body, send := io.Pipe()
	answers := make(chan int, 1)
	go func() {
		status, _, _ := post(t, url, asMessage, body)
		answers <- status
	}()
	_, err := io.WriteString(send, "From: a@blog."+domain+"\r\nTo: b@blog."+domain+"\r\n\r\n")
	gatewaytest.Must(t, err)
	gatewaytest.WaitFor(t, "the request", func() bool { return f.outbound.Posting() > 0 })
	stopped := make(chan error, 1)
	go func() { stopped <- f.Shutdown(t.Context()) }()
	gatewaytest.WaitFor(t, "the shutdown to begin", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.down })
	if status, _, answer := post(t, url, asJSON, strings.NewReader("{}")); status != http.StatusServiceUnavailable {
		t.Errorf("a later one: %d %s", status, answer)
	}
	_, err = io.WriteString(send, "the end\r\n")
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, send.Close())
	if status := <-answers; status != http.StatusAccepted {
		t.Errorf("the one under way: %d", status)
	}
	gatewaytest.Must(t, <-stopped)
}
