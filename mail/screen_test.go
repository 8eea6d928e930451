package mail

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
	"lodge/mail/screen"
	"lodge/mail/verdict"
)

const screenedText = "From: a@example.com\r\nSubject: x\r\n\r\nx\r\n"

// A client on a blocklist reaches the operator alone. The reply has the list's reason, and so has
// the VM's log.
func TestBlocklist(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, `66.2.0.192.bl.example. A 127.0.0.2`, `66.2.0.192.bl.example. TXT "see https://bl.example/"`)
	f := start(t, t.TempDir(), func(c *Config) {
		c.Screen = screen.Config{Blocklists: []string{"bl.example"}, Resolver: verdict.NewResolver("", zone.Addr)}
	})
	vm := f.add(t, "blog")
	c := helloFrom(t, forger, f.addr)
	const reply = "554 5.7.1 Service unavailable; Client host [192.0.2.66] blocked using bl.example; see https://bl.example/"
	c.ask("MAIL FROM:<b@example.com>", "250")
	c.ask("RCPT TO:<x@none."+domain+">", "550 5.1.1")
	c.ask("RCPT TO:<x@blog."+domain+">", reply)
	c.ask("RCPT TO:<postmaster@"+domain+">", "250")
	helloFrom(t, honest, f.addr).mail("b@example.com", screenedText, "250", vm)
	helloFrom(t, "127.0.0.1", f.addr).mail("b@example.com", screenedText, "250", vm)
	events, err := f.MailLog(t.Context(), vm.ID, 10)
	gatewaytest.Must(t, err)
	if last := events[len(events)-1]; last.Kind != gateway.MailRefused || last.Reply != reply {
		t.Errorf("the log has %+v", last)
	}
}

// A client that is refused, however often, displaces nothing in the log that a VM has of other nets.
func TestBlocklistedClientAndLog(t *testing.T) {
	t.Parallel()
	const other = "198.51.100.9"
	zone := domainstest.Start(t, "66.2.0.192.bl.example. A 127.0.0.2", "9.100.51.198.bl.example. A 127.0.0.2")
	f := start(t, t.TempDir(), func(c *Config) {
		c.Screen = screen.Config{Blocklists: []string{"bl.example"}, Resolver: verdict.NewResolver("", zone.Addr)}
	})
	vm := f.add(t, "blog")
	refuse := func(source string, times int) {
		c := helloFrom(t, source, f.addr)
		c.ask("MAIL FROM:<b@example.com>", "250")
		for range times {
			c.ask("RCPT TO:<x@blog."+domain+">", "554 5.7.1")
		}
	}
	refuse(other, 1)
	for range 10 {
		refuse(forger, 20)
	}
	events, err := f.MailLog(t.Context(), vm.ID, 0)
	gatewaytest.Must(t, err)
	by := map[string]int{}
	for _, e := range events {
		by[e.Remote]++
	}
	if by[other] != 1 || by[forger] == 0 || by[forger] > 30 {
		t.Errorf("the log has %v", by)
	}
}

// Mail that nothing proves waits, for a VM but not for the operator.
func TestGreylisting(t *testing.T) {
	t.Parallel()
	zone, _ := sender(t)
	f := start(t, t.TempDir(), func(c *Config) {
		checking(zone)(c)
		c.Screen.Greylist = true
	})
	vm := f.add(t, "blog")
	for range 2 {
		helloFrom(t, forger, f.addr).mail("b@example.com", screenedText, "451 4.7.1 Greylisted", vm)
	}
	helloFrom(t, honest, f.addr).mail("b@example.com", screenedText, "250", vm)
	helloFrom(t, "127.0.0.1", f.addr).mail("b@example.com", screenedText, "250", vm)
	c := helloFrom(t, forger, f.addr)
	c.ask("MAIL FROM:<b@example.com>", "250")
	c.ask("RCPT TO:<postmaster@"+domain+">", "250")
	c.ask("DATA", "354")
	c.send(screenedText)
	c.ask(".", "250")
	if n := len(f.list(t, vm)); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	leftNothing(t, filepath.Join(f.dir, "stage"))
}

// rspamd runs the real one, whose advice is the header X-Advice of a message, and which requires of
// each that it was given the envelope. It returns its URL.
func rspamd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l := listen(t) // to find a free port
	addr := l.Addr().String()
	gatewaytest.Must(t, l.Close())
	write(t, filepath.Join(dir, "tld"), []byte("com\n"))
	write(t, filepath.Join(dir, "conf"), fmt.Appendf(nil, `options { pidfile = "%[1]s/pid"; control_socket = "%[1]s/socket mode=0600"; url_tld = "%[1]s/tld";
tempdir = "%[1]s"; hs_cache_dir = "%[1]s"; filters = ""; dns { nameserver = ["127.0.0.1:1"]; } }
logging { type = "console"; level = "warning"; }
actions { reject = 15; add_header = 6; }
worker "normal" { bind_socket = "%[2]s"; count = 1; }
lua = "%[1]s/rules.lua";
`, dir, addr))
	write(t, filepath.Join(dir, "rules.lua"), []byte(`
rspamd_config:register_symbol({
  name = 'ADVICE', type = 'prefilter', priority = 10,
  callback = function(task)
    local envelope = tostring(task:get_ip()) .. ' ' .. tostring(task:get_helo()) .. ' ' .. task:get_from('smtp')[1].addr .. ' ' .. #task:get_recipients('smtp')
    if envelope ~= '192.0.2.66 client.example b@example.com 1' then task:set_pre_result('reject', envelope) end
    local advice = task:get_header('X-Advice')
    if advice then task:set_pre_result(advice, 'As the message asks for') end
  end,
})
`))
	cmd := exec.CommandContext(t.Context(), "/usr/bin/rspamd", "-f", "-i", "-c", filepath.Join(dir, "conf"))
	var log gatewaytest.Log
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its workers
	gatewaytest.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Wait() // it was interrupted
		if t.Failed() {
			t.Logf("rspamd: %s", log.String())
		}
	})
	url := "http://" + addr
	gatewaytest.WaitFor(t, "rspamd answers", func() bool {
		r, err := http.Get(url + "/ping") //nolint:noctx // it is on loopback
		if err != nil {
			return false
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return err == nil && strings.HasPrefix(string(text), "pong")
	})
	return url
}

// The real rspamd decides on mail of strangers, as far as the operator wants it.
func TestRspamd(t *testing.T) {
	t.Parallel()
	url := rspamd(t)
	for _, reject := range []bool{false, true} {
		f := start(t, t.TempDir(), func(c *Config) { c.Screen = screen.Config{Rspamd: url, Reject: reject} })
		vm := f.add(t, "blog")
		c := helloFrom(t, forger, f.addr)
		rejected := "250"
		if reject {
			rejected = "550 5.7.1 As the message asks for"
		}
		for _, step := range []struct {
			advice, reply string
			marked        bool
		}{
			{"no action", "250", false}, {"add header", "250", true}, {"soft reject", "451 4.7.1 As the message asks for", false}, {"reject", rejected, true},
		} {
			before := len(f.list(t, vm))
			c.mail("b@example.com", "X-Advice: "+step.advice+"\r\n"+screenedText, step.reply, vm)
			list := f.list(t, vm)
			if kept := len(list) > before; kept != (step.reply == "250") {
				t.Errorf("%s, reject %v: kept is %v", step.advice, reject, kept)
				continue
			} else if !kept {
				continue
			}
			if head, _, _ := strings.Cut(string(f.read(t, vm, list[0].QueueID)), "Received: "); strings.Contains(head, "\r\nX-Spam: Yes\r\n") != step.marked {
				t.Errorf("%s, reject %v: %q", step.advice, reject, head)
			}
		}
	}
}

// rspamd that fails keeps no mail out.
func TestRspamdRefusesNothing(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.NotFoundHandler())
	defer broken.Close()
	f := start(t, t.TempDir(), func(c *Config) { c.Screen = screen.Config{Rspamd: broken.URL, Reject: true} })
	helloFrom(t, forger, f.addr).mail("b@example.com", screenedText, "250", f.add(t, "blog"))
}

// What rspamd refuses is not refused where the operator gets it too, but marked.
func TestRspamdForOperator(t *testing.T) {
	t.Parallel()
	for action, reply := range map[string]string{
		"reject": "550 5.7.1 Spam message rejected", "soft reject": "451 4.7.1 Try again later",
	} {
		strict := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"action": %q}`, action)
		}))
		defer strict.Close()
		f := start(t, t.TempDir(), func(c *Config) { c.Screen = screen.Config{Rspamd: strict.URL, Reject: true} })
		vm := f.add(t, "blog")
		c := helloFrom(t, forger, f.addr)
		c.mail("b@example.com", screenedText, reply, vm)
		c.ask("MAIL FROM:<b@example.com>", "250")
		c.ask("RCPT TO:<postmaster@"+domain+">", "250")
		c.ask("RCPT TO:<x@blog."+domain+">", "250")
		c.ask("DATA", "354")
		c.send(screenedText)
		c.ask(".", "250")
		if text := string(f.read(t, vm, f.list(t, vm)[0].QueueID)); !strings.Contains(text, "\r\nX-Spam: Yes\r\nReceived: ") {
			t.Errorf("%s: not marked: %q", action, text)
		}
	}
}

// rspamd gets the message as it was signed, and a mark of the sender's own is removed.
func TestRspamdGetsOriginal(t *testing.T) {
	t.Parallel()
	const text = "X-Spam: No\r\nDelivered-To: x\r\n" + screenedText
	asked := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		asked <- fmt.Sprint(string(body), r.ContentLength-int64(len(body)), err)
		fmt.Fprint(w, `{"action": "no action"}`)
	}))
	defer server.Close()
	f := start(t, t.TempDir(), func(c *Config) { c.Screen.Rspamd = server.URL })
	vm := f.add(t, "blog")
	helloFrom(t, forger, f.addr).mail("b@example.com", text, "250", vm)
	if got := <-asked; got != text+"0 <nil>" {
		t.Errorf("rspamd got %q", got)
	}
	if stored := string(f.read(t, vm, f.list(t, vm)[0].QueueID)); strings.Contains(stored, "X-Spam") {
		t.Errorf("a forged mark is kept: %q", stored)
	}
}
