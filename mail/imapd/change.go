package imapd

import (
	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/mail/mailbox"
)

// Store changes flags, and sends them unless the client asked for .SILENT.
func (s *session) Store(w *imapserver.FetchWriter, set imap.NumSet, change *imap.StoreFlags, _ *imap.StoreOptions) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.view.readOnly {
		return errReadOnly()
	}
	flags, err := s.toStore(change)
	if err != nil {
		return s.answer(err)
	}
	unset := mailbox.Flags(0)
	switch change.Op {
	case imap.StoreFlagsSet:
		unset = mailbox.AllFlags | mailbox.AllKeywords
	case imap.StoreFlagsDel:
		flags, unset = 0, flags
	case imap.StoreFlagsAdd:
	}
	picked, now := s.pick(set)
	if err := s.setFlags(now, uidsOf(picked), flags, unset); err != nil {
		return s.answer(err)
	}
	for _, m := range picked {
		m.Flags = m.Flags&^unset | flags
		if change.Silent {
			continue
		}
		out := w.CreateMessage(m.seq)
		out.WriteUID(imap.UID(m.UID))
		out.WriteFlags(s.flagNames(m.Flags))
		if err := out.Close(); err != nil {
			return err
		}
	}
	return nil
}

func errReadOnly() error { return no("", "The folder was opened read-only") }

// toStore returns the flags of a STORE. Keywords that are new are made, unless they are to be removed.
func (s *session) toStore(change *imap.StoreFlags) (mailbox.Flags, error) {
	flags, keywords := splitFlags(change.Flags)
	if change.Op == imap.StoreFlagsDel {
		for _, name := range keywords {
			flags |= s.box.Snapshot().Keyword(name)
		}
		return flags, nil
	}
	words, err := s.box.Keywords(keywords)
	return flags | words, err
}

// setFlags changes flags that this command sends to its client, so that Poll does not send them
// again, unless other changes came in between.
func (s *session) setFlags(before mailbox.Snapshot, uids []uint32, set, unset mailbox.Flags) error {
	if err := s.box.SetFlags(uids, set, unset); err != nil {
		return err
	}
	if now := s.box.Snapshot(); s.view.mod == before.Mod && now.Mod == before.Mod+1 {
		s.view.sent(now)
	}
	return nil
}

// Expunge removes the messages flagged \Deleted, only those in uids if given. Poll then sends the
// numbers. CLOSE of a read-only mailbox calls it too, and must change nothing.
func (s *session) Expunge(_ *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.view.readOnly {
		return nil
	}
	var set imap.NumSet = imap.UIDSet{{Start: 1, Stop: 0}}
	if uids != nil {
		set = *uids
	}
	var doomed []selected
	picked, _ := s.pick(set)
	for _, m := range picked {
		if m.Flags&mailbox.Deleted != 0 {
			doomed = append(doomed, m)
		}
	}
	return s.answer(s.box.Expunge(uidsOf(doomed)))
}

func uidsOf(picked []selected) []uint32 {
	uids := make([]uint32, 0, len(picked))
	for _, m := range picked {
		uids = append(uids, m.UID)
	}
	return uids
}
