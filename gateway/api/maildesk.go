package api

import (
	"context"
	"log/slog"

	"lodge/gateway"
)

// MailStates shows how much mail there is for each VM that the caller may use, ordered by name, and for postmaster to
// owners, who is the last. A mailbox that cannot be read has an Error, and hides no other.
func (s Session) MailStates(ctx context.Context) ([]gateway.MailboxState, error) {
	if err := s.allowed(verbList); err != nil {
		return nil, err
	}
	var vms []gateway.Identity
	for _, m := range s.api.Directory.All() {
		if s.may(verbMail, m) && m.Desired != gateway.Removed {
			vms = append(vms, m.Identity)
		}
	}
	if s.owns() {
		vms = append(vms, gateway.Postmaster())
	}
	all := []gateway.MailboxState{} // an empty list is [] in JSON
	for _, vm := range vms {
		state, err := s.api.Mailbox.State(ctx, vm)
		if gateway.KindOf(err) == gateway.KindNotFound { // removed meanwhile
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			s.api.Logger.Error("mailbox not read", gateway.LogVM(vm), "err", err)
			state = gateway.MailboxState{Name: vm.Name, Error: "the mailbox cannot be read; the log of lodged has the cause"}
		}
		all = append(all, state)
	}
	return all, nil
}

// SearchMail returns the newest messages of a VM that fit all terms, at most limit (1 to MaxMessages).
func (s Session) SearchMail(ctx context.Context, name string, terms []string, limit int) ([]gateway.Message, error) {
	id, err := s.mailbox(verbSearchMail, name)
	if err == nil {
		err = checkLimit(limit)
	}
	if err != nil {
		return nil, err
	}
	found, err := s.api.MailDesk.Search(ctx, id, terms, limit)
	if found == nil {
		found = []gateway.Message{}
	}
	return found, err
}

// MailLog returns what became of a VM's mail, the newest event first, at most limit (1 to MaxMessages).
func (s Session) MailLog(ctx context.Context, name string, limit int) ([]gateway.MailEvent, error) {
	id, err := s.mailbox(verbMailLog, name)
	if err == nil {
		err = checkLimit(limit)
	}
	if err != nil {
		return nil, err
	}
	return s.api.MailDesk.MailLog(ctx, id, limit)
}

// Redeliver delivers messages into their VM again. KindNotFound: one of the queue ids does not exist; none is delivered
// then.
func (s Session) Redeliver(ctx context.Context, name string, r gateway.MailRedelivery) (gateway.MailRedelivered, error) {
	id, err := s.mailbox(verbRedeliver, name)
	if err == nil {
		err = r.Check()
	}
	if err != nil {
		return gateway.MailRedelivered{}, err
	}
	return s.api.MailDesk.Redeliver(ctx, id, r)
}

// MailQueue lists the letters that wait to leave the host, of a VM or, for an owner, of all for the empty name; the
// oldest first, at most limit (1 to MaxMessages).
func (s Session) MailQueue(ctx context.Context, name string, limit int) ([]gateway.QueuedMail, error) {
	id, err := s.queueOf(verbMailQueue, name)
	if err == nil {
		err = checkLimit(limit)
	}
	if err != nil {
		return nil, err
	}
	return s.api.MailDesk.Outgoing(ctx, id, limit)
}

// ChangeMailQueue retries or removes such letters. Their sender gets no report.
func (s Session) ChangeMailQueue(ctx context.Context, name string, c gateway.QueueChange) (gateway.QueueChanged, error) {
	id, err := s.queueOf(verbChangeQueue, name)
	if err != nil {
		return gateway.QueueChanged{}, err
	}
	if c.Retry == c.Remove || c.Remove && len(c.QueueIDs) == 0 || len(c.QueueIDs) > MaxMessages {
		return gateway.QueueChanged{}, gateway.Invalid("not a change of the queue").
			WithHint("Retry letters, or remove those of at most %d queue ids: lodge mail queue --help", MaxMessages)
	}
	changed, err := s.api.MailDesk.ChangeOutgoing(ctx, id, c)
	if c.Remove && changed.Letters > 0 { // also by a removal that failed half-way
		s.audit(ctx, gateway.EventMailUnqueued, slog.String("vm", name), slog.String("vm_id", id.String()))
	}
	return changed, err
}

// queueOf returns whose letters are meant: the zero ID for all, which is for owners alone.
func (s Session) queueOf(v verb, name string) (gateway.ID, error) {
	if name != "" {
		return s.mailbox(v, name)
	}
	if !s.owns() {
		return gateway.ID{}, errDenied(v)
	}
	return gateway.ID{}, nil
}

func checkLimit(limit int) error {
	if limit < 1 || limit > MaxMessages {
		return gateway.Invalid("not a limit: %d", limit).WithHint("A limit is a number from 1 to %d.", MaxMessages)
	}
	return nil
}
