package notice

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/relay"
)

// kept is a Relay that keeps what it is given.
type kept struct {
	messages []relay.Message
	texts    []string
}

func (k *kept) Send(_ context.Context, m relay.Message) (string, error) {
	text, err := io.ReadAll(m.Body)
	k.messages, k.texts = append(k.messages, m), append(k.texts, string(text))
	return fmt.Sprint(len(k.texts)), err
}

func ask(vm gateway.ID, to string) gateway.Notice {
	return gateway.Notice{Kind: gateway.NoticeAccess, VM: vm, To: to, Subject: "x asks", Text: "text\n"}
}

// A notice is plain text from the host's own name; nothing of it can add a header, and the log has none of its text.
func TestNotice(t *testing.T) {
	t.Parallel()
	log, out := new(gatewaytest.Log), new(kept)
	s := New("Lodge.example", out, log.Logger())
	gatewaytest.Must(t, s.Send(t.Context(), gateway.Notice{
		Kind: gateway.NoticeLogin, VM: gateway.NewID(), To: "ada@example.com", Subject: "Your\r\nBcc: eve@example.org ü", Text: "one\nhttps://secret\r\n.\r\n",
	}))
	m, text := out.messages[0], out.texts[0]
	if m.VM != gateway.Postmaster() || m.From != "lodge@lodge.example" || len(m.To) != 1 || m.To[0] != "ada@example.com" || m.UTF8 {
		t.Errorf("%+v", m)
	}
	header, body, _ := strings.Cut(text, "\r\n\r\n")
	for _, want := range []string{"From: Lodge <lodge@lodge.example>\r\n", "Subject: Your??Bcc: eve@example.org ?\r\n", "Auto-Submitted: auto-generated\r\n"} {
		if !strings.Contains(header+"\r\n", want) {
			t.Errorf("no %q in %q", want, header)
		}
	}
	if body != "one\r\nhttps://secret?\r\n.?\r\n" {
		t.Errorf("%q", body)
	}
	if strings.Contains(log.String(), "secret") {
		t.Error(log.String())
	}
}

// However often strangers ask, a person gets three notes and one every 8 hours, and a VM twice that, of all its people.
func TestRates(t *testing.T) {
	t.Parallel()
	out := new(kept)
	s := New("lodge.example", out, new(gatewaytest.Log).Logger())
	now := time.Now()
	s.now = func() time.Time { return now }
	blog := gateway.NewID()
	day := func(to func(i int) string, vm func() gateway.ID) (sent int) {
		before := len(out.texts)
		for i := range 24 * 60 {
			now = now.Add(time.Minute)
			if err := s.Send(t.Context(), ask(vm(), to(i))); err != nil && gateway.KindOf(err) != gateway.KindUnavailable {
				t.Fatal(err)
			}
		}
		return len(out.texts) - before
	}
	if n := day(func(int) string { return "Ada@example.com" }, gateway.NewID); n != 5 && n != 6 {
		t.Errorf("%d notes to one person on the first day", n)
	}
	if n := day(func(int) string { return "ada@EXAMPLE.com" }, gateway.NewID); n != 3 {
		t.Errorf("%d notes to one person on the second day", n)
	}
	if n := day(func(i int) string { return fmt.Sprintf("p%d@example.com", i) }, func() gateway.ID { return blog }); n != 11 && n != 12 {
		t.Errorf("%d notes about one VM", n)
	}
	if n := day(func(i int) string { return fmt.Sprintf("q%d@example.com", i) }, gateway.NewID); n > 300 {
		t.Errorf("%d notes in all", n)
	}
}

// A host without mail, or without a name on the internet, sends none, and none to its own names.
func TestNone(t *testing.T) {
	t.Parallel()
	for domain, to := range map[string]string{"lodge.localhost": "ada@example.com", "localhost": "ada@example.com", "box": "ada@example.com", "lodge.example": "x@blog.Lodge.example"} {
		if err := New(domain, new(kept), new(gatewaytest.Log).Logger()).Send(t.Context(), ask(gateway.NewID(), to)); gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("%s: %v", domain, err)
		}
	}
	if err := New("lodge.example", nil, new(gatewaytest.Log).Logger()).Send(t.Context(), ask(gateway.NewID(), "ada@example.com")); gateway.KindOf(err) != gateway.KindConflict {
		t.Error(err)
	}
}
