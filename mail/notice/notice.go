// Package notice sends mail of the host itself to its people: links that log them in, and notes that somebody asks for
// access. It comes from lodge@<domain>, signed as all that leaves the host is, in plain text, and says that no
// program should answer it (RFC 3834).
//
// Strangers cause notes by asking. So notices have rates per recipient and per VM, and in all; what is above them is
// not sent. The text is in the queue on disk until the recipient's server has it, and never in a log.
//
// A host whose domain is not one of the internet's sends none: nobody could verify it, nor answer.
package notice

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/mail/relay"
)

// Local is the local part of the sender.
const Local = "lodge"

// Relay sends mail to other hosts; relay.Queue is one.
type Relay interface {
	Send(ctx context.Context, m relay.Message) (queueID string, err error)
}

// rates of one kind of notice.
type rates struct {
	perPerson *limit.Rates[string]
	perVM     *limit.Rates[gateway.ID]
	all       *limit.Rates[struct{}]
}

// Sender sends notices. It is safe for concurrent use; make it with New.
type Sender struct {
	domain string
	relay  Relay
	logger *slog.Logger
	rates  map[gateway.NoticeKind]rates
	now    func() time.Time
}

// New returns a Sender of a host; relay is nil if it sends no mail.
func New(domain string, relay Relay, logger *slog.Logger) *Sender {
	const hour = 3600
	return &Sender{
		domain: strings.ToLower(domain), relay: relay, logger: logger, now: time.Now,
		rates: map[gateway.NoticeKind]rates{
			// An owner of the host asks for these.
			gateway.NoticeLogin: {limit.NewRates[string](6./hour, 5), limit.NewRates[gateway.ID](60./hour, 60), limit.NewRates[struct{}](200./hour, 200)},
			// Strangers cause these: three at once, and one every 8 hours; twice that for a VM, which several people manage.
			gateway.NoticeAccess: {limit.NewRates[string](0.125/hour, 3), limit.NewRates[gateway.ID](0.25/hour, 6), limit.NewRates[struct{}](10./hour, 50)},
		},
	}
}

// Send returns once the notice is synced to disk, to be sent. KindConflict: this host sends none, or none to that
// address; KindUnavailable: there were too many.
func (s *Sender) Send(ctx context.Context, n gateway.Notice) error {
	domain := strings.ToLower(n.To[strings.LastIndexByte(n.To, '@')+1:])
	switch {
	case s.relay == nil || s.domain == "localhost" || strings.HasSuffix(s.domain, ".localhost") || !strings.Contains(s.domain, "."):
		return gateway.Errorf(gateway.KindConflict, "this host sends no mail to others").WithHint("docs/mail.md has what it needs.")
	case domain == s.domain || strings.HasSuffix(domain, "."+s.domain):
		return gateway.Errorf(gateway.KindConflict, "%.254s is an address of this host itself", n.To)
	}
	if err := s.take(n); err != nil {
		return err
	}
	id, err := s.relay.Send(ctx, relay.Message{
		VM: gateway.Postmaster(), From: Local + "@" + s.domain, To: []string{n.To}, UTF8: ascii(n.To) != n.To, Body: bytes.NewReader(s.compose(n)),
	})
	if err != nil {
		return fmt.Errorf("send notice: %w", err)
	}
	s.logger.Info("notice queued", "event", string(n.Kind), "queue_id", id, "vm_id", n.VM.String(), "rcpt", n.To)
	return nil
}

// take takes a token of all rates, or of none.
func (s *Sender) take(n gateway.Notice) error {
	r, now := s.rates[n.Kind], s.now()
	_, undoPerson, ok := r.perPerson.Reserve(strings.ToLower(n.To), now, 0)
	if !ok {
		return tooMany("to this address")
	}
	_, undoVM, ok := r.perVM.Reserve(n.VM, now, 0)
	if !ok {
		undoPerson()
		return tooMany("about this VM")
	}
	if _, _, ok := r.all.Reserve(struct{}{}, now, 0); !ok {
		undoPerson()
		undoVM()
		return tooMany("of this host")
	}
	return nil
}

func tooMany(which string) error {
	return gateway.Errorf(gateway.KindUnavailable, "too many notices %s", which).WithHint("Try again later.")
}

func (s *Sender) compose(n gateway.Notice) []byte {
	now := s.now().UTC()
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Lodge <%s@%s>", Local, s.domain)
	line("To: <%s>", n.To)
	line("Subject: %s", ascii(n.Subject))
	line("Date: %s", now.Format(time.RFC1123Z))
	line("Message-ID: <%s@%s>", gateway.NewID(), s.domain)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=us-ascii")
	line("")
	for text := range strings.Lines(n.Text) {
		line("%s", ascii(strings.TrimSuffix(text, "\n")))
	}
	return b.Bytes()
}

// ascii makes a line of printable ASCII.
func ascii(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, text)
}
