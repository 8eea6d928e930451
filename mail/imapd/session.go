package imapd

import (
	"net"
	"strings"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway"
	"lodge/mail/mailbox"
	"lodge/mail/mime"
)

const inbox = "INBOX"

// session is one connection. go-imap calls its methods one at a time, with one exception: when the
// client disconnects, or sends anything but DONE, go-imap does not wait for Idle. Hence the lock.
type session struct {
	server *Server
	vm     gateway.Identity
	box    *mailbox.Box
	turn   sync.Mutex // held while the view is used, Idle included
	view   *view      // nil until SELECT
	conn   net.Conn

	parsed    *mime.Part // the message that parse returned last; messages never change
	parsedUID uint32
}

// Close ends the session.
func (s *session) Close() error { return nil }

// Login is for servers without PREAUTH.
func (s *session) Login(string, string) error {
	return no("", "Already authenticated: the VM is the login")
}

// Select opens INBOX.
func (s *session) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	if err := mustBeInbox(name); err != nil {
		return nil, err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	now := s.box.Snapshot()
	s.view = newView(now, options != nil && options.ReadOnly)
	data := &imap.SelectData{
		Flags: toIMAP(mailbox.AllFlags), NumMessages: uint32(now.Entries.Len()), // as count
		UIDNext: imap.UID(now.NextUID), UIDValidity: now.Validity,
	}
	if !s.view.readOnly {
		data.PermanentFlags = data.Flags
	}
	for i, e := range now.Entries.All() {
		if e.Flags&mailbox.Seen == 0 {
			data.FirstUnseenSeqNum = uint32(i) + 1 // UIDs are 32 bits, so is their number
			break
		}
	}
	return data, nil
}

// Unselect closes INBOX.
func (s *session) Unselect() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.view = nil
	return nil
}

// Status returns the counts of INBOX.
func (s *session) Status(name string, options *imap.StatusOptions) (*imap.StatusData, error) {
	if err := mustBeInbox(name); err != nil {
		return nil, err
	}
	return status(s.box.Snapshot(), options), nil
}

func status(now mailbox.Snapshot, options *imap.StatusOptions) *imap.StatusData {
	var unseen, deleted uint32
	var size, deletedSize int64
	for _, e := range now.Entries.All() {
		size += e.Bytes
		if e.Flags&mailbox.Seen == 0 {
			unseen++
		}
		if e.Flags&mailbox.Deleted != 0 {
			deleted++
			deletedSize += e.Bytes
		}
	}
	messages, recent := uint32(now.Entries.Len()), uint32(0) // as count
	data := &imap.StatusData{Mailbox: inbox, UIDNext: imap.UID(now.NextUID), UIDValidity: now.Validity}
	data.NumMessages, data.NumUnseen, data.NumDeleted = &messages, &unseen, &deleted
	data.Size, data.DeletedStorage, data.NumRecent = &size, &deletedSize, &recent
	_ = options // go-imap writes only the requested items
	return data
}

// List lists INBOX if a pattern matches. INBOX is always subscribed.
func (s *session) List(w *imapserver.ListWriter, ref string, patterns []string, options *imap.ListOptions) error {
	if len(patterns) == 0 { // asks for the hierarchy delimiter (RFC 9051 §6.3.9)
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: '/'})
	}
	if options.SelectSpecialUse {
		return nil
	}
	for _, p := range patterns {
		if !imapserver.MatchList(inbox, '/', strings.ToUpper(ref), strings.ToUpper(p)) {
			continue
		}
		data := &imap.ListData{Mailbox: inbox, Delim: '/', Attrs: []imap.MailboxAttr{imap.MailboxAttrHasNoChildren}}
		if options.ReturnStatus != nil {
			data.Status = status(s.box.Snapshot(), options.ReturnStatus)
		}
		return w.WriteList(data)
	}
	return nil
}

// Namespace returns one personal namespace.
func (s *session) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: '/'}}}, nil
}

// Subscribe accepts INBOX.
func (s *session) Subscribe(name string) error { return mustBeInbox(name) }

// Unsubscribe is refused.
func (s *session) Unsubscribe(string) error { return refused() }

// Create is refused.
func (s *session) Create(string, *imap.CreateOptions) error { return refused() }

// Delete is refused.
func (s *session) Delete(string) error { return refused() }

// Rename is refused.
func (s *session) Rename(string, string, *imap.RenameOptions) error { return refused() }

// Copy is refused: there is no second mailbox.
func (s *session) Copy(imap.NumSet, string) (*imap.CopyData, error) { return nil, refused() }

// Append is refused. go-imap reads and drops the literal.
func (s *session) Append(string, imap.LiteralReader, *imap.AppendOptions) (*imap.AppendData, error) {
	return nil, no(imap.ResponseCodeCannot, "APPEND is not supported: send mail to this VM's address")
}

func refused() error { return no(imap.ResponseCodeCannot, "Only INBOX exists") }

func mustBeInbox(name string) error {
	if strings.EqualFold(name, inbox) {
		return nil
	}
	return no(imap.ResponseCodeNonExistent, "There is only INBOX here")
}

func no(code imap.ResponseCode, text string) error {
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: text}
}

// answer is the one table from errors of the store to IMAP responses. nil stays nil.
func (s *session) answer(err error) error {
	if err == nil {
		return nil
	}
	switch gateway.KindOf(err) {
	case gateway.KindNotFound:
		return no("", "The message or the mailbox does not exist")
	case gateway.KindNoSpace:
		return no(imap.ResponseCodeOverQuota, "The host's disk is full")
	default:
		s.server.config.Logger.Error("imap command failed", gateway.LogVM(s.vm), "err", err)
		return no(imap.ResponseCodeServerBug, "Internal error, see lodged's log")
	}
}

func count[T any](all []T) uint32 { return uint32(len(all)) } // UIDs are 32 bits, so is their number
