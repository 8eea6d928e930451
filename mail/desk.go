package mail

import (
	"context"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// State implements api.Mailbox.
func (s *Server) State(_ context.Context, vm gateway.Identity) (gateway.MailboxState, error) {
	box, err := s.box(vm.ID)
	if err != nil {
		return gateway.MailboxState{}, err
	}
	now := box.Snapshot()
	state := gateway.MailboxState{Name: vm.Name, Messages: now.Entries.Len(), Bytes: now.Bytes()}
	if vm.ID != gateway.Postmaster().ID { // the operator's mail goes nowhere else
		state.Waiting, state.Oldest = box.Waiting()
	}
	if s.queue != nil {
		state.Queued = s.queue.WaitingOf(vm.ID)
	}
	return state, nil
}

// MailLog returns the log of a VM's mail, the newest event first, at most limit.
func (s *Server) MailLog(_ context.Context, id gateway.ID, limit int) ([]gateway.MailEvent, error) {
	if _, err := s.box(id); err != nil {
		return nil, err
	}
	return s.journal.List(id, limit)
}

// Redeliver delivers messages into their VM again, whatever has become of the copies there; one that is still in
// ~/Maildir/new makes no second one. It returns once that is recorded; the delivery follows.
func (s *Server) Redeliver(_ context.Context, id gateway.ID, r gateway.MailRedelivery) (gateway.MailRedelivered, error) {
	box, err := s.box(id)
	if err != nil {
		return gateway.MailRedelivered{}, err
	}
	if id == gateway.Postmaster().ID {
		return gateway.MailRedelivered{}, gateway.Errorf(gateway.KindConflict, "the mail of postmaster is delivered into no VM").
			WithHint("Read it here: lodge mail postmaster")
	}
	chosen, err := choose(box, r)
	if err != nil {
		return gateway.MailRedelivered{}, err
	}
	now := box.Snapshot()
	var uids []uint32
	for _, e := range chosen {
		if now.Delivered(e) {
			uids = append(uids, e.UID)
		}
	}
	if err := box.Redeliver(uids); err != nil {
		return gateway.MailRedelivered{}, err
	}
	s.replica.Retry(id)
	return gateway.MailRedelivered{Messages: len(chosen)}, nil
}

// choose returns the messages of a redelivery.
func choose(box *mailbox.Box, r gateway.MailRedelivery) (chosen []mailbox.Entry, err error) {
	missing := map[string]bool{}
	for _, id := range r.QueueIDs {
		missing[id] = true
	}
	for _, e := range box.Snapshot().Entries.All() {
		if missing[e.QueueID] || !r.Since.IsZero() && !e.Received.Before(r.Since) {
			chosen = append(chosen, e)
			delete(missing, e.QueueID)
		}
	}
	for _, id := range r.QueueIDs {
		if missing[id] {
			return nil, gateway.Errorf(gateway.KindNotFound, "no message %.100q", id).WithHint("lodge mail VM lists the messages.")
		}
	}
	return chosen, nil
}

// Outgoing returns the letters that wait to leave the host, of a VM or of all for the zero ID, the oldest first.
func (s *Server) Outgoing(_ context.Context, id gateway.ID, limit int) ([]gateway.QueuedMail, error) {
	if s.queue == nil {
		return []gateway.QueuedMail{}, nil
	}
	return s.queue.List(id, limit, s.nameOf), nil
}

func (s *Server) nameOf(id gateway.ID) string {
	if id == gateway.Postmaster().ID {
		return gateway.Postmaster().Name
	}
	m, _ := s.config.Directory.ByID(id) // the zero VM once it is removed
	return m.Name
}

// ChangeOutgoing retries or removes letters, of a VM or of all for the zero ID. KindNotFound: none has one of the queue
// ids, which may have been sent meanwhile.
func (s *Server) ChangeOutgoing(_ context.Context, id gateway.ID, c gateway.QueueChange) (changed gateway.QueueChanged, err error) {
	switch {
	case s.queue == nil:
	case c.Remove:
		changed.Letters, err = s.queue.RemoveLetters(id, c.QueueIDs)
	default:
		changed.Letters = s.queue.Retry(id, c.QueueIDs)
	}
	if err == nil && changed.Letters == 0 && len(c.QueueIDs) > 0 {
		err = gateway.Errorf(gateway.KindNotFound, "no letter with these queue ids waits").WithHint("lodge mail queue lists them; what was sent is in lodge mail log VM.")
	}
	return changed, err
}
