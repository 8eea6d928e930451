package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// withRoute is a server whose VM "hello" gets its mail by a route. Its port leads to addr; "" is a VM
// that listens nowhere.
func withRoute(t *testing.T, setting string, addr func() string) (*fixture, gateway.Identity) {
	t.Helper()
	f := start(t, t.TempDir(), func(c *Config) {
		c.Dial = func(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error) {
			want, err := gateway.ParseMailRoute(setting)
			if err != nil || m.Name != "hello" || port != want.Port || addr() == "" {
				return nil, fmt.Errorf("connection refused: %s, port %d", m.Name, port)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", addr())
		}
	})
	vm := f.add(t, "hello")
	f.setRoute(t, vm, setting)
	return f, vm
}

func (f *fixture) setRoute(t *testing.T, vm gateway.Identity, setting string) {
	t.Helper()
	_, err := f.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error { m.Mail.Route = setting; return nil })
	gatewaytest.Must(t, err)
}

// taken is what a server in a guest got.
type taken struct {
	from, to, text string
}

// shelf is a go-smtp server in a guest. It refuses messages with "refuse me", for good, and those with
// "not now" while full is set; "cut me off" ends the connection after the message is taken.
type shelf struct {
	mu   sync.Mutex
	all  []taken
	full bool
	cuts int
}

// shelfSession is one transaction. It is made anew for each connection.
type shelfSession struct {
	shelf *shelf
	conn  *smtp.Conn
	now   taken
}

func (s *shelf) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &shelfSession{shelf: s, conn: c}, nil
}

func (s *shelf) texts() (all []taken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

func (s *shelf) setFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

func (*shelfSession) Logout() error { return nil }
func (s *shelfSession) Reset()      { s.now = taken{} }

func (s *shelfSession) Mail(from string, _ *smtp.MailOptions) error {
	s.now.from = from
	return nil
}

func (s *shelfSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.now.to = to
	return nil
}

func (s *shelfSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.now.text = string(text)
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	switch {
	case strings.Contains(s.now.text, "refuse me"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Spam"}
	case s.shelf.full && strings.Contains(s.now.text, "not now"):
		return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "Mailbox full"}
	}
	s.shelf.all = append(s.shelf.all, s.now)
	if strings.Contains(s.now.text, "cut me off") && s.shelf.cuts == 0 {
		s.shelf.cuts++
		return errors.Join(s.conn.Conn().Close(), errors.New("cut off"))
	}
	return nil
}

// serveShelf runs a shelf on loopback.
func serveShelf(t *testing.T, lmtp bool) (*shelf, string) {
	t.Helper()
	s := &shelf{}
	server := smtp.NewServer(s)
	server.Domain, server.LMTP, server.EnableSMTPUTF8, server.ErrorLog = "guest", lmtp, true, quiet{}
	l := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return s, l.Addr().String()
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// The VM's own server gets each message with its envelope, in order, without what only the last server
// writes. What it refuses for good, or for a time, stops nothing behind it.
func TestOwnServer(t *testing.T) {
	for _, setting := range []string{"smtp", "lmtp"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			server, real := serveShelf(t, setting == "lmtp")
			addr, mu := "", sync.Mutex{}
			f, vm := withRoute(t, setting, func() string { mu.Lock(); defer mu.Unlock(); return addr })
			server.setFull(true)
			var ids []string
			for _, body := range []string{"one\r\n..\r\n..two dots", "refuse me", "not now", "four", "five"} {
				ids = append(ids, f.deliverTo(t, vm, body))
			}
			gatewaytest.WaitFor(t, "it waits for the server", func() bool { return strings.Contains(f.show(t, vm, ids[4]).Error, "connection refused") })
			mu.Lock()
			addr = real
			mu.Unlock()
			f.started(t, vm)
			f.awaitDelivery(t, vm, ids[4])
			gatewaytest.WaitFor(t, "the reasons", func() bool {
				return strings.Contains(f.show(t, vm, ids[1]).Error, "Spam") && strings.Contains(f.show(t, vm, ids[2]).Error, "Mailbox full")
			})
			server.setFull(false)
			f.started(t, vm)
			f.awaitDelivery(t, vm, ids[2])
			all := server.texts()
			if len(all) != 4 {
				t.Fatalf("%d messages: %+v", len(all), all)
			}
			for i, id := range []string{ids[0], ids[3], ids[4], ids[2]} {
				want := string(f.read(t, vm, id))
				_, want, _ = strings.Cut(want, "Delivered-To: x@hello."+domain+"\r\n")
				if got := all[i]; got.from != "a@b.c" || got.to != "x@hello."+domain || got.text != want || !strings.HasPrefix(want, "Received: ") {
					t.Errorf("message %d: %+v, want %q", i, got, want)
				}
			}
			if f.show(t, vm, ids[1]).Delivered {
				t.Error("the refused message is listed as delivered")
			}
		})
	}
}

// A message whose reply is lost comes again, and nothing is lost: SMTP allows no better (RFC 1047).
func TestLostReply(t *testing.T) {
	t.Parallel()
	server, addr := serveShelf(t, true)
	f, vm := withRoute(t, "lmtp", func() string { return addr })
	id := f.deliverTo(t, vm, "cut me off")
	f.awaitDelivery(t, vm, id)
	all := server.texts()
	if len(all) != 2 || all[0] != all[1] {
		t.Errorf("got %+v", all)
	}
}

// A change of the route counts from the next message on.
func TestRouteChanges(t *testing.T) {
	t.Parallel()
	server, addr := serveShelf(t, false)
	f, vm := withRoute(t, "smtp", func() string { return addr })
	id := f.deliverTo(t, vm, "one")
	f.awaitDelivery(t, vm, id)
	f.setRoute(t, vm, "maildir")
	id = f.deliverTo(t, vm, "two")
	gatewaytest.WaitFor(t, "it waits for sshd", func() bool { return strings.Contains(f.show(t, vm, id).Error, "SSH key") })
	f.setRoute(t, vm, "smtp")
	f.awaitDelivery(t, vm, id)
	if all := server.texts(); len(all) != 2 {
		t.Errorf("got %+v", all)
	}
}

// A web server of the VM gets a POST for each message, byte for byte, and decides by its status.
func TestPost(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	status := map[string]int{}
	var got []string
	requests := map[string]*http.Request{}
	site := http.NewServeMux()
	site.HandleFunc("POST /in/mail", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for what, code := range status {
			if strings.Contains(string(text), what) {
				http.Error(w, "because of "+what, code)
				return
			}
		}
		got = append(got, string(text))
		requests[r.Header.Get("X-Lodge-Queue-Id")] = r
		w.WriteHeader(http.StatusNoContent)
	})
	server := &http.Server{Handler: site} //nolint:gosec // its client is ours
	l := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	status["bad one"], status["not now"] = http.StatusUnprocessableEntity, http.StatusServiceUnavailable
	f, vm := withRoute(t, "http://8025/in/mail?key=x", func() string { return l.Addr().String() })
	bad, later, good := f.deliverTo(t, vm, "bad one"), f.deliverTo(t, vm, "not now"), f.deliverTo(t, vm, "good\r\n..")
	f.awaitDelivery(t, vm, good)
	for id, reason := range map[string]string{bad: "422", later: "503"} {
		if m := f.show(t, vm, id); m.Delivered || !strings.Contains(m.Error, reason) || !strings.Contains(m.Error, "because of") {
			t.Errorf("want %s: %+v", reason, m)
		}
	}
	mu.Lock()
	clear(status)
	mu.Unlock()
	f.started(t, vm)
	f.awaitDelivery(t, vm, bad)
	f.awaitDelivery(t, vm, later)
	mu.Lock()
	defer mu.Unlock()
	for _, id := range []string{bad, later, good} {
		if text := string(f.read(t, vm, id)); !slices.Contains(got, text) {
			t.Errorf("%q was not posted", text)
		}
		r := requests[id]
		if r == nil {
			t.Fatalf("no request for %s", id)
		}
		h := r.Header
		if h.Get("X-Lodge-Mail-From") != "a@b.c" || h.Get("X-Lodge-Mail-To") != "x@hello."+domain || h.Get("Idempotency-Key") != `"`+id+`"` ||
			h.Get("Content-Type") != "message/rfc822" || r.Host != "hello."+domain+":8025" || r.URL.RequestURI() != "/in/mail?key=x" {
			t.Errorf("%s %s: %v", r.Host, r.URL, h)
		}
	}
	if len(got) != 3 {
		t.Errorf("%d messages", len(got))
	}
}
