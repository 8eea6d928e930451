package api

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"lodge/gateway"
)

// Limits on a list of mail.
const (
	DefaultMessages = 100
	MaxMessages     = 10_000
)

// Console opens a VM's serial console: raw bytes both ways, until either side closes it, ctx ends or the caller may no
// longer use it. The caller closes it.
func (s Session) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	m, err := s.vm(verbConsole, name)
	if err != nil {
		return nil, err
	}
	ctx, end := s.while(ctx, verbConsole, m.ID)
	serial, err := s.api.Terminals.Console(ctx, m.ID)
	if err != nil {
		end()
		return nil, err
	}
	return struct {
		io.ReadWriter
		io.Closer
	}{serial, closedWith(ctx, serial, end)}, nil
}

// Log reads the output of a VM's console; with follow it continues until ctx ends or the caller may no longer read it.
// The caller closes it.
func (s Session) Log(ctx context.Context, name string, follow bool) (io.ReadCloser, error) {
	m, err := s.vm(verbLog, name)
	if err != nil {
		return nil, err
	}
	ctx, end := s.while(ctx, verbLog, m.ID)
	text, err := s.api.Terminals.Log(ctx, m.ID, follow)
	if err != nil {
		end()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{text, closedWith(ctx, text, end)}, nil
}

// closer closes once.
type closer func() error

// Close implements io.Closer.
func (c closer) Close() error { return c() }

// closedWith closes c when ctx ends, which ends a Read under way, or when the caller does; end is called after that.
func closedWith(ctx context.Context, c io.Closer, end func()) io.Closer {
	once := sync.OnceValue(c.Close)
	stop := context.AfterFunc(ctx, func() { _ = once() }) // the reader sees the error
	return closer(func() error {
		defer end()
		stop()
		return once()
	})
}

// SSH returns what a log-in to a VM needs.
func (s Session) SSH(_ context.Context, name string) (gateway.SSHAccess, error) {
	m, err := s.vm(verbSSH, name)
	if err != nil {
		return gateway.SSHAccess{}, err
	}
	if m.Desired == gateway.Stopped {
		return gateway.SSHAccess{}, gateway.Errorf(gateway.KindConflict, "%s is stopped", m.Name).WithHint("Start it first: lodge start %s", m.Name)
	}
	return s.api.Terminals.SSH(m.ID)
}

// Mail lists a VM's newest messages, at most limit (1 to MaxMessages). Those of the name "postmaster" are
// the operator's.
func (s Session) Mail(ctx context.Context, name string, limit int) ([]gateway.Message, error) {
	id, err := s.mailbox(verbMail, name)
	if err == nil {
		err = checkLimit(limit)
	}
	if err != nil {
		return nil, err
	}
	messages, err := s.api.Mailbox.List(ctx, id, limit)
	if messages == nil {
		messages = []gateway.Message{} // an empty list is [] in JSON
	}
	return messages, err
}

// Message reads one message as it is stored. The caller closes it.
func (s Session) Message(ctx context.Context, name, queueID string) (io.ReadCloser, error) {
	id, err := s.mailbox(verbMessage, name)
	if err != nil {
		return nil, err
	}
	return s.api.Mailbox.Open(ctx, id, queueID)
}

// RemoveMail removes messages from the host; copies in the VM stay. KindNotFound: one of the queue ids does not exist;
// KindConflict: one of the messages is not in the VM yet, and r does not have Waiting. Nothing is removed then.
func (s Session) RemoveMail(ctx context.Context, name string, r gateway.MailRemoval) (gateway.MailRemoved, error) {
	id, err := s.mailbox(verbRemoveMail, name)
	if err != nil {
		return gateway.MailRemoved{}, err
	}
	ways := 0
	for _, set := range []bool{len(r.QueueIDs) > 0, r.All, !r.Before.IsZero()} {
		if set {
			ways++
		}
	}
	if ways != 1 || len(r.QueueIDs) > MaxMessages {
		return gateway.MailRemoved{}, gateway.Invalid("not a choice of messages to remove").
			WithHint("Name at most %d queue ids, or all, or those before a time: lodge mail rm --help", MaxMessages)
	}
	removed, err := s.api.Mailbox.RemoveMessages(ctx, id, r)
	if removed.Messages > 0 { // also by a removal that failed half-way
		s.audit(ctx, gateway.EventMailRemoved, slog.String("vm", name), slog.String("vm_id", id.String()), slog.Int64("bytes", removed.Bytes))
	}
	return removed, err
}

// mailbox returns the mailbox of a VM, or the operator's, which is for owners alone.
func (s Session) mailbox(v verb, name string) (gateway.ID, error) {
	if postmaster := gateway.Postmaster(); name == postmaster.Name {
		if !s.may(v, gateway.VM{}) {
			return gateway.ID{}, errDenied(v)
		}
		return postmaster.ID, nil
	}
	m, err := s.vm(v, name)
	return m.ID, err
}
