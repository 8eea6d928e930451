package mail

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"lodge/mail/smtpd"
	"lodge/mail/submit"
)

// What one VM gets has a rate: a message above it is refused for now, at RCPT if its size was announced, else at its end,
// for all its recipients. Other VMs get theirs, and the operator all.
func TestBytesOfAVM(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), func(c *Config) {
		c.MaxMessageBytes = 1 << 20
		c.inBytes = smtpd.Rate{PerSecond: 1e-3, Burst: 1} // it is raised to that of one message, and 1 MiB
	})
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	body := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 900_000/80) + "."
	c, _ := hello(t, f.addr)
	send := func(mail, want string, rcpts ...string) {
		t.Helper()
		c.ask("MAIL FROM:<a@b.c>"+mail, "250")
		for _, r := range rcpts {
			to, want, _ := strings.Cut(r, " ")
			c.ask("RCPT TO:<"+to+">", want)
		}
		if want == "" {
			c.ask("RSET", "250")
			return
		}
		c.ask("DATA", "354")
		c.ask(body, want)
	}
	const inBlog, inShop, tooMuch = "x@blog." + domain, "x@shop." + domain, "452 4.2.2 This mailbox has received too much mail"
	send("", "250", inBlog+" 250")
	send("", "250", inBlog+" 250")
	send(" SIZE=900000", "250", inBlog+" "+tooMuch, inShop+" 250")
	send("", tooMuch, inBlog+" 250", inShop+" 250")
	for range 3 {
		send(" SIZE=900000", "250", "postmaster@"+domain+" 250")
	}
	send("", "250", inShop+" 250") // the refused message has cost it nothing
	if b, s := len(f.list(t, blog)), len(f.list(t, shop)); b != 2 || s != 2 {
		t.Errorf("%d and %d messages", b, s)
	}
	if all := f.events(t, blog.ID); len(all) != 4 || !strings.Contains(all[3], "452 4.2.2") {
		t.Errorf("%q", all)
	}
}

// What one VM sends has a rate too, counted for each recipient.
func TestBytesFromAVM(t *testing.T) {
	t.Parallel()
	rates := submit.DefaultRates()
	rates.Bytes = smtpd.Rate{PerSecond: 1, Burst: 11_000}
	f, _, _ := sending(t, func(c *Config) { c.sendRates = &rates })
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	letter := func(to string) string {
		return `{"to": [` + to + `], "subject": "x", "text": "` + strings.Repeat("x", 3000) + `"}`
	}
	one, two := `"a@shop.`+domain+`"`, `"a@shop.`+domain+`", "b@shop.`+domain+`"`
	url := f.posting(t, blog)
	for _, row := range []struct {
		to     string
		status int
	}{{two, http.StatusAccepted}, {two, http.StatusTooManyRequests}, {one, http.StatusAccepted}, {one, http.StatusTooManyRequests}} {
		status, header, answer := post(t, url, asJSON, strings.NewReader(letter(row.to)))
		wait, _ := time.ParseDuration(header.Get("Retry-After") + "s")
		if status != row.status || (status == http.StatusTooManyRequests) != (wait > 0) {
			t.Errorf("%s: %d %s, %v", row.to, status, answer, header)
		}
	}
	if status, _, answer := post(t, f.posting(t, shop), asJSON, strings.NewReader(letter(one))); status != http.StatusAccepted {
		t.Errorf("another VM: %d %s", status, answer)
	}
}
