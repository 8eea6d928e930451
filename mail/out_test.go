package mail

import (
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
	"lodge/mail/relay"
	"lodge/mail/verdict"
)

// A server that sends mail reports to the VM's mailbox what has no way out, and wakes it. A removed VM has
// nothing in the queue, and a server that sends nothing shows that.
func TestOut(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, "null.example. MX 0 .")
	woken := make(chan gateway.ID, 8)
	f := start(t, t.TempDir(), func(c *Config) {
		c.Out = &Out{Dir: t.TempDir(), Resolver: verdict.NewResolver("", zone.Addr)}
		c.Arrived = func(id gateway.ID) { woken <- id }
	})
	blog := f.add(t, "blog")
	send := func(to string) {
		t.Helper()
		_, err := f.Queue().Send(t.Context(), relay.Message{VM: blog, From: "app@blog." + domain, To: []string{to}, Body: strings.NewReader("From: app@blog." + domain + "\r\n\r\nhello\r\n")})
		gatewaytest.Must(t, err)
	}
	send("x@null.example")
	if id := <-woken; id != blog.ID {
		t.Errorf("%s was woken", id)
	}
	if all := f.list(t, blog); len(all) != 1 || all[0].From != "" || all[0].Subject != "Mail was not delivered" || all[0].Rcpt != "app@blog."+domain {
		t.Errorf("%+v", all)
	}
	gatewaytest.WaitFor(t, "an empty queue", func() bool { return f.Queue().Waiting() == 0 })
	zone.Fail(2)
	send("x@slow.example")
	_, err := f.directory.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Desired = gateway.Removed; return nil })
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, f.Remove(t.Context(), blog.ID))
	if n := f.Queue().Waiting(); n != 0 {
		t.Errorf("%d wait after the removal", n)
	}
	if err := f.Notify(t.Context(), gateway.Notice{Kind: gateway.NoticeLogin, To: "x@null.example"}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a notice of %s: %v", domain, err)
	}
	records, err := f.DNSRecords("")
	if err != nil || len(records) != 7 {
		t.Errorf("%d records, %v", len(records), err)
	}
	for _, r := range records {
		if strings.Contains(r.Why, " NS ") { // no name server has the keys
			t.Errorf("%+v", r)
		}
	}
	if _, err := start(t, t.TempDir(), nil).DNSRecords(""); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("without Out: %v", err)
	}
}

// A notice goes through the queue; that it was not delivered is reported to the operator, without its text.
func TestNotify(t *testing.T) {
	t.Parallel()
	zone := domainstest.Start(t, "null.example. MX 0 .")
	f := start(t, t.TempDir(), func(c *Config) {
		c.Domain = "lodge.example"
		c.Out = &Out{Dir: t.TempDir(), Resolver: verdict.NewResolver("", zone.Addr)}
	})
	gatewaytest.Must(t, f.Notify(t.Context(), gateway.Notice{Kind: gateway.NoticeLogin, To: "x@null.example", Subject: "Your login", Text: "https://secret\n"}))
	operator := gateway.Postmaster()
	gatewaytest.WaitFor(t, "a report", func() bool { return len(f.list(t, operator)) == 1 })
	report := f.list(t, operator)[0]
	text := string(f.read(t, operator, report.QueueID))
	if report.Rcpt != "lodge@lodge.example" || !strings.Contains(text, "Subject: Your login") || !strings.Contains(text, "DKIM-Signature") || strings.Contains(text, "secret") || strings.Contains(f.log.String(), "secret") {
		t.Errorf("%+v\n%s\n%s", report, text, f.log)
	}
}
