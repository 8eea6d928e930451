package mail

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
	"lodge/mail/submit"
)

// A VM that sends too much stops itself alone, and learns when it may go on.
func TestSendRates(t *testing.T) {
	t.Parallel()
	rates := submit.DefaultRates()
	rates.Messages = smtpd.Rate{PerSecond: 0.01, Burst: 2}
	rates.Recipients = smtpd.Rate{PerSecond: 0.01, Burst: 5}
	f, _, _ := sending(t, func(c *Config) { c.sendRates = &rates })
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	c, _ := hello(t, f.tap(t, blog))
	c.ask("MAIL FROM:<a@localhost>", "250")
	for i := range 5 {
		c.ask(fmt.Sprintf("RCPT TO:<x%d@localhost>", i), "250")
	}
	c.ask("RCPT TO:<y@localhost>", "450 4.7.1 Too many recipients from this VM, try again in 100 s")
	c.ask("RSET", "250")
	c.ask("MAIL FROM:<a@localhost>", "250")
	c.ask("RSET", "250")
	c.ask("MAIL FROM:<a@localhost>", "450 4.7.1 Too many messages from this VM, try again in 100 s")
	if got := f.reply(t, f.tap(t, shop), "a@localhost", "x@blog.lodge.localhost"); !strings.HasPrefix(got, "250") {
		t.Errorf("another VM: %q", got)
	}
}

// 10,000 recipients are refused from the 101st on, and the message still arrives.
func TestVMWithManyRecipients(t *testing.T) {
	t.Parallel()
	f, _, _ := sending(t, nil)
	blog := f.add(t, "blog")
	c, _ := hello(t, f.tap(t, blog))
	c.ask("MAIL FROM:<a@localhost>", "250")
	const all = 10_000
	go func() {
		var b bytes.Buffer
		for i := range all {
			fmt.Fprintf(&b, "RCPT TO:<x%d@localhost>\r\n", i)
		}
		_, _ = c.Write(b.Bytes()) // the replies show what arrived
	}()
	count := map[string]int{}
	for range all {
		got, err := c.answer()
		gatewaytest.Must(t, err)
		count[got[:9]]++
	}
	if count["250 2.1.5"] != 100 || count["452 4.5.3"] != all-100 {
		t.Errorf("%v", count)
	}
	c.ask("DATA", "354")
	c.ask("x\r\n.", "250")
	if n := len(f.list(t, blog)); n != 100 {
		t.Errorf("%d messages", n)
	}
}

// What programs send that have only the address: swaks, and Python's smtplib.
func TestRealClientsSend(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog := f.add(t, "blog")
	host, port, err := net.SplitHostPort(f.tap(t, blog))
	gatewaytest.Must(t, err)
	const script = `import smtplib, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Bcc"], m["Subject"] = "app@localhost", "ann@example.org", "root@localhost", "Grüße"
m.set_content("Grüße\n.\nend\n")
m.add_attachment(bytes(range(256)) * 1000, maintype="application", subtype="octet-stream", filename="x.bin")
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as s:
    s.send_message(m)
`
	for name, args := range map[string][]string{
		"swaks":  {"--server", host, "--port", port, "--helo", "blog", "--from", "root@blog", "--to", owner + ",root@localhost", "--header", "Subject: by swaks", "--timeout", "30"},
		"python": {"-c", script, host, port},
	} {
		program := name
		if name == "python" {
			program = "python3"
		}
		if text, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		sent := out.last(t)
		if !slices.Equal(sent.To, []string{owner}) || !strings.HasSuffix(sent.From, "@blog.lodge.localhost") || strings.Contains(sent.text, "\r\nBcc:") {
			t.Errorf("%s: %+v, %.1000q", name, sent.Message, sent.text)
		}
	}
	if n := len(f.list(t, blog)); n != 2 {
		t.Errorf("%d messages in the VM's own mailbox", n)
	}
}

// lastText is the message that was relayed last, if any.
func (o *outbox) lastText() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.sent) == 0 {
		return ""
	}
	return o.sent[len(o.sent)-1].text
}

// The VM's msmtp, with the configuration that the seed brings, is sendmail(8) for programs without settings:
// cron, for one.
func TestSendmail(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog := f.add(t, "blog")
	host, port, err := net.SplitHostPort(f.tap(t, blog))
	gatewaytest.Must(t, err)
	dir := t.TempDir()
	fill := strings.NewReplacer("@HOST@", "blog."+domain, "169.254.169.254", host, "port 25", "port "+port, "/etc/lodge/aliases", filepath.Join(dir, "aliases"))
	for _, name := range []string{"msmtprc", "aliases"} {
		text, err := os.ReadFile(filepath.Join("..", "vmhost", "seed", "files", name))
		gatewaytest.Must(t, err)
		write(t, filepath.Join(dir, name), []byte(fill.Replace(string(text))))
	}
	for name, row := range map[string]struct {
		args  []string
		text  string
		local int // messages more in the VM's own mailbox
		want  string
	}{
		"cron":    {[]string{"-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"}, "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@blog> true\n\nx\n", 1, "From: \"Cron Daemon\" <root@blog.lodge.localhost>\r\n"},
		"text":    {[]string{"root"}, "only text\n", 1, "\r\n\r\nonly text\r\n"},
		"-t":      {[]string{"-t"}, "To: ann@example.org\nBcc: root@localhost\nSubject: t\n\n.\nx\n", 1, "\r\n\r\n.\r\nx\r\n"},
		"-f":      {[]string{"-f", "www@blog", "ann@example.org"}, "Subject: f\n\nx\n", 0, ""},
		"another": {[]string{"-f", "a@blog", owner, "x@blog.lodge.localhost"}, "From: Web <www@localhost>\n\nx\n", 1, "From: \"Web\" <www@blog.lodge.localhost>\r\n"},
	} {
		before := len(f.list(t, blog))
		cmd := exec.CommandContext(t.Context(), "msmtp", append([]string{"-C", filepath.Join(dir, "msmtprc")}, row.args...)...) //nolint:gosec // of the table
		cmd.Stdin = strings.NewReader(row.text)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		list := f.list(t, blog)
		if len(list) != before+row.local {
			t.Errorf("%s: %d messages, were %d", name, len(list), before)
			continue
		}
		text := out.lastText()
		if row.local > 0 {
			text = string(f.read(t, blog, list[0].QueueID))
		}
		if !strings.Contains(text, row.want) || strings.Contains(text, "Bcc") {
			t.Errorf("%s: %q", name, text)
		}
	}
}
