package imapd

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway"
	"lodge/mail/mailbox"
	"lodge/mail/mime"
)

// session is one connection. go-imap calls its methods one at a time, with one exception: when the
// client disconnects, or sends anything but DONE, go-imap does not wait for Idle. Hence the lock.
type session struct {
	server  *Server
	vm      gateway.Identity
	folders *mailbox.Folders // nil before a login
	conn    net.Conn

	cut      func() error // closes the connection of a session from outside at once
	late     *time.Timer  // cuts a session from outside that does not log in
	password []byte       // the hash of the one that opened it; nil for a VM
	leave    func()       // gives back what a login has taken

	turn sync.Mutex   // held while what follows is used, Idle included
	box  *mailbox.Box // the selected one; nil without
	view *view        // of it

	parsed    *mime.Part // the message that parse returned last; messages never change
	parsedUID uint32
}

// Close ends the session.
func (s *session) Close() error {
	if s.late != nil {
		s.late.Stop()
	}
	if s.password != nil {
		s.server.outside.remove(s)
	}
	return nil
}

// Login is for people outside.
func (s *session) Login(user, password string) error {
	if s.server.outside == nil {
		return no("", "Already authenticated: the VM is the login")
	}
	return s.server.outside.login(s, user, password)
}

// Select opens a folder.
func (s *session) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	box, err := s.folders.Open(name)
	if err != nil {
		return nil, s.answer(err)
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	now := box.Snapshot()
	s.box, s.view, s.parsed = box, newView(now, options != nil && options.ReadOnly), nil
	data := &imap.SelectData{
		Flags: toIMAP(mailbox.AllFlags|mailbox.AllKeywords, now.Keywords), NumMessages: uint32(now.Entries.Len()), // as count
		UIDNext: imap.UID(now.NextUID), UIDValidity: now.Validity,
	}
	if !s.view.readOnly {
		data.PermanentFlags = permanent(now)
	}
	for i, e := range now.Entries.All() {
		if e.Flags&mailbox.Seen == 0 {
			data.FirstUnseenSeqNum = uint32(i) + 1 // UIDs are 32 bits, so is their number
			break
		}
	}
	return data, nil
}

// permanent is what clients can set. The wildcard is for new keywords, while there is room (RFC 9051 §7.1).
func permanent(now mailbox.Snapshot) []imap.Flag {
	all := toIMAP(mailbox.AllFlags|mailbox.AllKeywords, now.Keywords)
	if len(now.Keywords) < mailbox.MaxKeywords {
		all = append(all, imap.FlagWildcard)
	}
	return all
}

// Unselect closes the folder.
func (s *session) Unselect() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.box, s.view = nil, nil
	return nil
}

// Status returns the counts of a folder.
func (s *session) Status(name string, options *imap.StatusOptions) (*imap.StatusData, error) {
	box, err := s.folders.Open(name)
	if err != nil {
		return nil, s.answer(err)
	}
	return s.status(name, box.Snapshot(), options), nil
}

// status has all items, but those that need a look at each message only if one is requested; go-imap writes only the
// requested ones.
func (s *session) status(name string, now mailbox.Snapshot, options *imap.StatusOptions) *imap.StatusData {
	var unseen, deleted uint32
	var deletedSize int64
	size := now.Bytes()
	for _, e := range now.Entries.All() {
		if !options.NumUnseen && !options.NumDeleted && !options.DeletedStorage {
			break
		}
		if e.Flags&mailbox.Seen == 0 {
			unseen++
		}
		if e.Flags&mailbox.Deleted != 0 {
			deleted++
			deletedSize += e.Bytes
		}
	}
	messages, recent, limit := uint32(now.Entries.Len()), uint32(0), s.AppendLimit() // as count
	data := &imap.StatusData{Mailbox: name, UIDNext: imap.UID(now.NextUID), UIDValidity: now.Validity}
	data.NumMessages, data.NumUnseen, data.NumDeleted = &messages, &unseen, &deleted
	data.Size, data.DeletedStorage, data.NumRecent, data.AppendLimit = &size, &deletedSize, &recent, &limit
	return data
}

// Namespace returns one personal namespace.
func (s *session) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: '/'}}}, nil
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
		return no(imap.ResponseCodeNonExistent, "The message or the folder does not exist")
	case gateway.KindNoSpace:
		if mailbox.OverQuota(err) {
			return no(imap.ResponseCodeOverQuota, "The mailbox is full: remove mail, or raise the quota of the VM")
		}
		return no(imap.ResponseCodeOverQuota, "The host's disk is full")
	case gateway.KindTaken:
		return no(imap.ResponseCodeAlreadyExists, err.Error())
	case gateway.KindInvalid, gateway.KindDenied:
		return no(imap.ResponseCodeCannot, err.Error())
	case gateway.KindConflict:
		return no(imap.ResponseCodeLimit, err.Error())
	case gateway.KindUnavailable:
		return no(imap.ResponseCodeUnavailable, err.Error())
	default:
		s.server.config.Logger.Error("imap command failed", gateway.LogVM(s.vm), "err", err)
		return no(imap.ResponseCodeServerBug, "Internal error, see lodged's log")
	}
}

func count[T any](all []T) uint32 { return uint32(len(all)) } // UIDs are 32 bits, so is their number

// Poll sends the client what has changed since the last update.
func (s *session) Poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.sendChanges(w, allowExpunge)
}

func (s *session) sendChanges(w *imapserver.UpdateWriter, allowExpunge bool) error {
	if s.view == nil {
		return nil
	}
	return s.view.update(w, s.box.Snapshot(), allowExpunge)
}

// picked are the messages of a set, and the mailbox at that moment.
func (s *session) pick(set imap.NumSet) ([]selected, mailbox.Snapshot) {
	now := s.box.Snapshot()
	return s.view.pick(set, now), now
}

// flagNames returns the names of a message's flags.
func (s *session) flagNames(flags mailbox.Flags) []imap.Flag {
	return toIMAP(flags, s.box.Snapshot().Keywords)
}

// splitFlags divides flags into those of the system and keywords. Other flags with a backslash are not
// kept, as PERMANENTFLAGS announces.
func splitFlags(list []imap.Flag) (flags mailbox.Flags, keywords []string) {
	flags = fromIMAP(list)
	for _, name := range list {
		if name != "" && name[0] != '\\' {
			keywords = append(keywords, string(name))
		}
	}
	slices.Sort(keywords)
	return flags, slices.Compact(keywords)
}
