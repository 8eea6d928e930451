package controltest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
)

// Spoil makes the mailbox of a VM one that cannot be read.
func (h *Host) Spoil(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unreadable = name
}

// State implements api.Mailbox.
func (h *Host) State(_ context.Context, vm gateway.Identity) (gateway.MailboxState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unreadable == vm.Name {
		return gateway.MailboxState{}, errors.New("read index: input/output error")
	}
	state := gateway.MailboxState{Name: vm.Name}
	for _, m := range h.messages[vm.ID] {
		state.Messages++
		state.Bytes += m.Bytes
		if !m.Delivered && vm != gateway.Postmaster() {
			state.Waiting++
			state.Oldest = m.Received
		}
	}
	return state, nil
}

// Search implements api.MailDesk: it looks at subjects.
func (h *Host) Search(ctx context.Context, id gateway.ID, terms []string, limit int) ([]gateway.Message, error) {
	all, err := h.List(ctx, id, limit)
	return slices.DeleteFunc(all, func(m gateway.Message) bool { return !strings.Contains(m.Subject, terms[0]) }), err
}

// Redeliver implements api.MailDesk.
func (h *Host) Redeliver(ctx context.Context, id gateway.ID, r gateway.MailRedelivery) (done gateway.MailRedelivered, err error) {
	all, err := h.List(ctx, id, 1000)
	for _, m := range all {
		if slices.Contains(r.QueueIDs, m.QueueID) || !r.Since.IsZero() {
			done.Messages++
		}
	}
	if done.Messages < len(r.QueueIDs) {
		return gateway.MailRedelivered{}, gateway.Errorf(gateway.KindNotFound, "no message %q", r.QueueIDs[0])
	}
	return done, err
}

// MailLog implements api.MailDesk: one event for each message, and one that was refused.
func (h *Host) MailLog(ctx context.Context, id gateway.ID, limit int) ([]gateway.MailEvent, error) {
	all, err := h.List(ctx, id, limit)
	events := []gateway.MailEvent{{
		Time: time.Unix(2e9, 0), Kind: gateway.MailRefused, From: "eve@evil.example", To: "x@blog.lodge.localhost", Remote: "192.0.2.1", Reply: "550 5.1.1 User unknown",
	}}
	for _, m := range all {
		events = append(events, gateway.MailEvent{Time: m.Received, Kind: gateway.MailReceived, QueueID: m.QueueID, From: m.From, To: m.Rcpt, Bytes: m.Bytes})
	}
	return events, err
}

// letter is what waits in every queue.
const letter = "0hk2v9d3m1abcdefghijk00000"

// Outgoing implements api.MailDesk.
func (h *Host) Outgoing(_ context.Context, id gateway.ID, _ int) ([]gateway.QueuedMail, error) {
	m, _ := h.Directory.ByID(id)
	return []gateway.QueuedMail{{
		VM: m.Name, QueueID: letter, To: "bob@example.org", Bytes: 2048, Queued: time.Now().Add(-3 * time.Hour), Attempts: 4,
		Next: time.Now().Add(time.Hour), Server: "mx.example.org", Reply: "451 4.7.1 Greylisted",
	}}, nil
}

// ChangeOutgoing implements api.MailDesk.
func (h *Host) ChangeOutgoing(_ context.Context, _ gateway.ID, c gateway.QueueChange) (gateway.QueueChanged, error) {
	if len(c.QueueIDs) > 0 && c.QueueIDs[0] != letter {
		return gateway.QueueChanged{}, gateway.Errorf(gateway.KindNotFound, "no letter with these queue ids waits")
	}
	return gateway.QueueChanged{Letters: 1}, nil
}

// Notify implements api.Notices: mail goes to example.com alone.
func (h *Host) Notify(_ context.Context, n gateway.Notice) error {
	if !strings.HasSuffix(n.To, "@example.com") {
		return gateway.Errorf(gateway.KindConflict, "this host sends no mail to %s", n.To)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notices = append(h.notices, n)
	return nil
}

// Notices returns what was sent.
func (h *Host) Notices() []gateway.Notice {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.notices)
}
