package mail

import (
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// swaks sends a mail and returns the dialogue.
func (f *fixture) swaks(t *testing.T, from, to string) (said string, accepted bool) {
	t.Helper()
	host, port, _ := net.SplitHostPort(f.addr)
	out, err := exec.CommandContext(t.Context(), "swaks", "--server", host, "--port", port, "--helo", "client.example",
		"--from", from, "--to", to, "--body", "x", "--timeout", "30").CombinedOutput()
	return string(out), err == nil
}

// A real client sees the settings, and a change of them with the next recipient.
func TestSwaksWithSettings(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	only := gateway.MailAddress{Local: gateway.NewMailLocal(), From: []string{"@shop.example"}, Expires: time.Now().Add(time.Hour)}
	ended := gateway.MailAddress{Local: gateway.NewMailLocal(), From: []string{"@shop.example"}, Expires: time.Now().Add(-time.Second)}
	strict := gateway.MailSettings{AllowFrom: []string{"@example.org"}, Addresses: []gateway.MailAddress{only, ended}}
	const at = "@blog." + domain
	received := 0
	for _, row := range []struct {
		name     string
		settings gateway.MailSettings
		from, to string
		refused  string // "": accepted
	}{
		{"no settings", gateway.MailSettings{}, "eve@evil.example", "x" + at, ""},
		{"off", gateway.MailSettings{Off: true}, "eve@evil.example", "x" + at, "550 5.1.1"},
		{"on again", gateway.MailSettings{}, "eve@evil.example", "x" + at, ""},
		{"not allowed", strict, "eve@evil.example", "x" + at, "550 5.1.1"},
		{"allowed", strict, "ann@example.org", "x" + at, ""},
		{"bounce", strict, "<>", "x" + at, "550 5.1.1"},
		{"address", strict, "orders@shop.example", only.Local + at, ""},
		{"address: another sender", strict, "ann@example.org", only.Local + at, "550 5.1.1"},
		{"address: expired", strict, "orders@shop.example", ended.Local + at, "550 5.1.1"},
		{"address: removed", gateway.MailSettings{}, "orders@shop.example", only.Local + at, "550 5.1.1"},
		{"alias", gateway.MailSettings{Aliases: []string{"shop", "sales@"}}, "eve@evil.example", "x@shop." + domain, ""},
		{"alias at the domain", gateway.MailSettings{Aliases: []string{"shop", "sales@"}}, "eve@evil.example", "sales@" + domain, ""},
		{"alias removed", gateway.MailSettings{}, "eve@evil.example", "sales@" + domain, "550 5.7.1"},
	} {
		_, err := f.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error { m.Mail = row.settings; return nil })
		gatewaytest.Must(t, err)
		said, accepted := f.swaks(t, row.from, row.to)
		if accepted != (row.refused == "") || !strings.Contains(said, "<** "+row.refused) && !accepted {
			t.Errorf("%s: want %q\n%s", row.name, row.refused, said)
		}
		if accepted {
			received++
		}
		if got := len(f.list(t, vm)); got != received {
			t.Errorf("%s: %d messages, want %d", row.name, got, received)
		}
	}
}

// arrivals counts calls of Config.Arrived, each with the messages that were in the mailbox then.
type arrivals struct {
	mu  sync.Mutex
	all []int
	vm  map[gateway.ID]int
}

// A message is reported once for each VM, when it is in the mailbox; a refused one is not.
func TestArrived(t *testing.T) {
	t.Parallel()
	told := arrivals{vm: map[gateway.ID]int{}}
	var f *fixture
	arrived := func(c *Config) {
		c.Arrived = func(id gateway.ID) {
			list, err := f.List(t.Context(), id, 0)
			if err != nil {
				t.Error(err)
			}
			told.mu.Lock()
			defer told.mu.Unlock()
			told.all = append(told.all, len(list))
			told.vm[id]++
		}
	}
	f = start(t, t.TempDir(), arrived)
	blog, web := f.add(t, "blog"), f.add(t, "web")
	c, _ := hello(t, f.addr)
	for range 2 {
		c.ask("MAIL FROM:<a@b.c>", "250")
		for _, to := range []string{"x@blog.", "y@blog.", "z@web.", "postmaster@"} {
			c.ask("RCPT TO:<"+to+domain+">", "250")
		}
		c.ask("RCPT TO:<x@none."+domain+">", "550")
		c.ask("DATA", "354")
		c.ask("Subject: x\r\n\r\nbody\r\n.", "250")
	}
	c.ask("MAIL FROM:<a@b.c>", "250")
	c.ask("RCPT TO:<x@blog."+domain+">", "250")
	c.ask("DATA", "354")
	c.ask("Subject: x\r\n\r\na\rb\r\n.", "5")
	told.mu.Lock()
	defer told.mu.Unlock()
	if told.vm[blog.ID] != 2 || told.vm[web.ID] != 2 || len(told.all) != 4 {
		t.Errorf("reported to %v", told.vm)
	}
	for _, n := range told.all {
		if n == 0 {
			t.Errorf("reported before the message was in the mailbox: %v", told.all)
		}
	}
}
