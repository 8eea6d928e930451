package imapd

import (
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

const (
	maxPatterns     = 20   // of one LIST
	maxPatternBytes = 1024 // of all of them, each with the reference
)

// List lists INBOX and the folders (RFC 5258, RFC 5819, RFC 6154). LSUB is a list of those that are
// subscribed; INBOX always is.
func (s *session) List(w *imapserver.ListWriter, ref string, patterns []string, options *imap.ListOptions) error {
	if len(patterns) == 0 { // asks for the hierarchy delimiter (RFC 9051 §6.3.9)
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: '/'})
	}
	if len(patterns) > maxPatterns {
		return no(imap.ResponseCodeLimit, "LIST takes at most 20 patterns")
	}
	length := 0
	for i, p := range patterns {
		if length += len(ref) + len(p); length > maxPatternBytes {
			return no(imap.ResponseCodeLimit, "The patterns of a LIST have at most 1024 bytes")
		}
		patterns[i] = absolute(ref, p)
	}
	all, err := s.folders.List()
	if err != nil {
		return s.answer(err)
	}
	all = append([]mailbox.Folder{{Name: mailbox.Inbox, Subscribed: true}}, all...)
	for i := range all {
		data := listed(all, i, patterns, options)
		if data == nil {
			continue
		}
		if options.ReturnStatus != nil {
			if box, err := s.folders.Open(data.Mailbox); err == nil { // else it was deleted meanwhile
				data.Status = s.status(data.Mailbox, box.Snapshot(), options.ReturnStatus)
			}
		}
		if err := w.WriteList(data); err != nil {
			return err
		}
	}
	return nil
}

// listed returns the line of a folder in a list; nil if it has none.
func listed(all []mailbox.Folder, i int, patterns []string, options *imap.ListOptions) *imap.ListData {
	f := all[i]
	if options.SelectSpecialUse && !f.Special || !matchesAny(patterns, f.Name) {
		return nil
	}
	children, subscribedBelow := false, false
	for _, other := range all {
		if strings.HasPrefix(other.Name, f.Name+mailbox.Separator) {
			children, subscribedBelow = true, subscribedBelow || other.Subscribed
		}
	}
	if options.SelectSubscribed && !f.Subscribed && (!options.SelectRecursiveMatch || !subscribedBelow) {
		return nil
	}
	data := &imap.ListData{Mailbox: f.Name, Delim: '/', Attrs: []imap.MailboxAttr{imap.MailboxAttrHasNoChildren}}
	if children {
		data.Attrs[0] = imap.MailboxAttrHasChildren
	}
	if f.Special { // these are called like their use
		data.Attrs = append(data.Attrs, imap.MailboxAttr(`\`+f.Name))
	}
	if f.Subscribed && (options.SelectSubscribed || options.ReturnSubscribed) {
		data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
	}
	if options.SelectRecursiveMatch && subscribedBelow {
		data.ChildInfo = &imap.ListDataChildInfo{Subscribed: true}
	}
	return data
}

// absolute joins a reference and a pattern (RFC 3501 §6.3.8), with INBOX as its first level in upper case.
func absolute(ref, pattern string) string {
	if p, is := strings.CutPrefix(pattern, mailbox.Separator); is {
		ref, pattern = "", p
	}
	if ref != "" && !strings.HasSuffix(ref, mailbox.Separator) {
		ref += mailbox.Separator
	}
	first, rest, deeper := strings.Cut(ref+pattern, mailbox.Separator)
	if !strings.EqualFold(first, mailbox.Inbox) {
		return ref + pattern
	}
	if deeper {
		rest = mailbox.Separator + rest
	}
	return mailbox.Inbox + rest
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if matches(p, name) {
			return true
		}
		if rest, is := strings.CutPrefix(name, mailbox.Inbox); is && (rest == "" || rest[0] == mailbox.Separator[0]) {
			n := min(len(p), len(mailbox.Inbox))
			if matches(strings.ToUpper(p[:n])+p[n:], name) {
				return true
			}
		}
	}
	return false
}

// matches compares a name with a pattern of LIST: "*" is any text, "%" any text within a level. Each part of the
// pattern passes over what the parts before it cannot have matched: a pattern that is longer than the name ends early.
func matches(pattern, name string) bool {
	at := make([]bool, len(name)+1) // at[i]: the pattern so far matches name[:i]
	at[0] = true
	first := 0 // the lowest i of these
	var last byte
	for _, p := range []byte(pattern) {
		if last == '*' && (p == '*' || p == '%') || last == '%' && p == '%' {
			continue // the same again
		}
		last = p
		if first = advance(at, first, p, name); first > len(name) {
			return false
		}
	}
	return at[len(name)]
}

// advance takes one more part of a pattern into at, and returns the first that is true; beyond it if none is.
func advance(at []bool, first int, p byte, name string) int {
	lowest, before := len(at), false // of at[i-1], before this part
	for i := first; i < len(at); i++ {
		was := at[i]
		switch p {
		case '*':
			at[i] = true
		case '%':
			at[i] = was || i > first && at[i-1] && name[i-1] != mailbox.Separator[0]
		default:
			at[i] = before && name[i-1] == p
		}
		if at[i] && i < lowest {
			lowest = i
		}
		before = was
	}
	return lowest
}

// Create makes a folder, and those above it. A separator at the end announces folders below it.
func (s *session) Create(name string, options *imap.CreateOptions) error {
	if options != nil && len(options.SpecialUse) > 0 {
		return no("USEATTR", "Sent, Drafts, Trash, Archive and Junk exist already")
	}
	return s.answer(s.folders.Create(strings.TrimSuffix(name, mailbox.Separator)))
}

// Delete removes a folder with its mail.
func (s *session) Delete(name string) error {
	err := s.folders.Delete(name)
	if gateway.KindOf(err) == gateway.KindConflict {
		return no(imap.ResponseCodeHasChildren, err.Error())
	}
	return s.answer(err)
}

// Rename renames a folder and those below it.
func (s *session) Rename(name, to string, _ *imap.RenameOptions) error {
	return s.answer(s.folders.Rename(name, strings.TrimSuffix(to, mailbox.Separator)))
}

// Subscribe shows a folder in LSUB.
func (s *session) Subscribe(name string) error { return s.subscribe(name, true) }

// Unsubscribe hides it there.
func (s *session) Unsubscribe(name string) error { return s.subscribe(name, false) }

func (s *session) subscribe(name string, on bool) error {
	if strings.EqualFold(name, mailbox.Inbox) {
		if !on {
			return no(imap.ResponseCodeCannot, "INBOX is always subscribed")
		}
		return nil
	}
	return s.answer(s.folders.Subscribe(name, on))
}
