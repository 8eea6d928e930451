package mail

import (
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// One message for mailboxes here and people outside is everybody's or nobody's.
func TestMixedRecipients(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	addr := f.tap(t, blog)
	box, err := f.store.Box(shop.ID)
	gatewaytest.Must(t, err)
	deliver := func(reply string) {
		t.Helper()
		c, _ := hello(t, addr)
		c.ask("MAIL FROM:<a@localhost>", "250")
		for _, to := range []string{owner, "x@shop.lodge.localhost", "root@blog", "root@localhost", "root@blog.lodge.localhost"} {
			c.ask("RCPT TO:<"+to+">", "250")
		}
		c.ask("DATA", "354")
		c.ask("Subject: x\r\nBcc: z@example.com\r\n\r\nx\r\n.", reply)
	}
	for _, row := range []struct {
		err   error
		reply string
	}{
		{gateway.Errorf(gateway.KindNoSpace, "full"), "452 4.3.1"},
		{gateway.Errorf(gateway.KindUnavailable, "down"), "451 4.3.0"},
		{gateway.Invalid("header too large"), "554 5.6.0"},
	} {
		out.err = row.err
		before, _ := box.Changed()
		deliver(row.reply)
		if a, b := f.list(t, blog), f.list(t, shop); len(a)+len(b)+len(out.sent) != 0 {
			t.Errorf("after %v: %v, %v", row.err, a, b)
		}
		if now, _ := box.Changed(); now != before {
			t.Errorf("%v: the other VM had the message for a moment", row.err)
		}
	}
	out.late = gateway.Errorf(gateway.KindNoSpace, "full")
	deliver("452 4.3.1")
	if a, b := f.list(t, blog), f.list(t, shop); len(a)+len(b)+len(out.sent) != 0 {
		t.Errorf("after the queue's disk was full: %v, %v", a, b)
	}
	f.set(t, shop, func(m *gateway.VM) { m.Mail.QuotaBytes = 1 })
	c, _ := hello(t, addr)
	c.ask("MAIL FROM:<a@localhost> SIZE=1000", "250")
	c.ask("RCPT TO:<x@shop.lodge.localhost>", "452 4.2.2 Mailbox full")
	f.set(t, shop, func(m *gateway.VM) { m.Mail.QuotaBytes = 0 })
	deliver("250")
	if a, b := f.list(t, blog), f.list(t, shop); len(a) != 1 || len(b) != 1 {
		t.Errorf("%v, %v", a, b)
	}
	sent := out.last(t)
	if sent.VM != blog || sent.From != "a@blog.lodge.localhost" || !slices.Equal(sent.To, []string{owner}) || sent.UTF8 {
		t.Errorf("%+v", sent.Message)
	}
	want := regexp.MustCompile(`^Received: from client\.example \(blog\.lodge\.localhost\)\r\n\tby lodge\.localhost with ESMTP; [^\r]+\r\nSubject: x\r\nFrom: <a@blog\.lodge\.localhost>\r\nDate: [^\r]+\r\nMessage-ID: <[^\r]+>\r\n\r\nx\r\n$`)
	if !want.MatchString(sent.text) {
		t.Errorf("relayed %q", sent.text)
	}
	leftNothing(t, filepath.Join(f.dir, "stage"))
}
