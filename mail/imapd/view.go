package imapd

import (
	"cmp"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/mail/mailbox"
)

// view is the mailbox as it was last sent to a client: the message with sequence number n has UID
// uids[n-1].
type view struct {
	uids     []uint32
	mod      uint64 // number of changes that the client was sent
	readOnly bool   // EXAMINE
}

func newView(now mailbox.Snapshot, readOnly bool) *view {
	v := &view{mod: now.Mod, readOnly: readOnly, uids: make([]uint32, 0, len(now.Entries))}
	for _, e := range now.Entries {
		v.uids = append(v.uids, e.UID)
	}
	return v
}

// updates sends changes to a client; *imapserver.UpdateWriter implements it.
type updates interface {
	WriteExpunge(seqNum uint32) error
	WriteNumMessages(n uint32) error
	WriteMessageFlags(seqNum uint32, uid imap.UID, flags []imap.Flag) error
}

// update sends the client what has changed. If expunges are not allowed (RFC 9051 §7.5.1) and there
// is one, it sends nothing, so that the sequence numbers stay valid.
func (v *view) update(w updates, now mailbox.Snapshot, expunges bool) error {
	if now.Mod == v.mod {
		return nil
	}
	gone := v.gone(now.Entries)
	if len(gone) > 0 && !expunges {
		return nil
	}
	for _, seq := range gone { // from the end, so that the numbers before stay as they are
		if err := w.WriteExpunge(seq); err != nil {
			return err
		}
		v.uids = slices.Delete(v.uids, int(seq)-1, int(seq))
	}
	known := len(v.uids)
	for _, e := range now.Entries[known:] {
		v.uids = append(v.uids, e.UID)
	}
	if len(v.uids) > known {
		if err := w.WriteNumMessages(count(v.uids)); err != nil {
			return err
		}
	}
	for i, e := range now.Entries[:known] {
		if e.Mod > v.mod {
			if err := w.WriteMessageFlags(uint32(i)+1, imap.UID(e.UID), toIMAP(e.Flags)); err != nil { // as count
				return err
			}
		}
	}
	v.mod = now.Mod
	return nil
}

// gone returns the sequence numbers of messages that are in the view but no longer in the mailbox,
// in descending order. New messages have higher UIDs than all in the view.
func (v *view) gone(entries []mailbox.Entry) []uint32 {
	var gone []uint32
	i := 0
	for n, uid := range v.uids {
		if i < len(entries) && entries[i].UID == uid {
			i++
			continue
		}
		gone = append(gone, uint32(n)+1) // as count
	}
	slices.Reverse(gone)
	return gone
}

// selected is a message of a command's set.
type selected struct {
	mailbox.Entry
	seq uint32
}

// pick returns the messages of a set that are in the view and still in the mailbox.
func (v *view) pick(set imap.NumSet, now mailbox.Snapshot) []selected {
	has := v.matcher(set)
	var picked []selected
	for n, uid := range v.uids {
		seq := uint32(n) + 1 // as count
		if !has(seq, uid) {
			continue
		}
		i, ok := slices.BinarySearchFunc(now.Entries, uid, func(e mailbox.Entry, uid uint32) int { return cmp.Compare(e.UID, uid) })
		if ok {
			picked = append(picked, selected{now.Entries[i], seq})
		}
	}
	return picked
}

// matcher returns a function that reports whether a message is in set, where "*" is the last
// message of the view.
func (v *view) matcher(set imap.NumSet) func(seq, uid uint32) bool {
	var last uint32
	if len(v.uids) > 0 {
		last = v.uids[len(v.uids)-1]
	}
	switch set := set.(type) {
	case imap.SeqSet:
		return func(seq, _ uint32) bool {
			return slices.ContainsFunc(set, func(r imap.SeqRange) bool { return within(seq, r.Start, r.Stop, count(v.uids)) })
		}
	case imap.UIDSet:
		return func(_, uid uint32) bool {
			return slices.ContainsFunc(set, func(r imap.UIDRange) bool { return within(uid, uint32(r.Start), uint32(r.Stop), last) })
		}
	default:
		return func(uint32, uint32) bool { return false }
	}
}

// within reports whether n is in start:stop, where 0 stands for "*" and the two may come in any
// order.
func within(n, start, stop, last uint32) bool {
	if start == 0 {
		start = last
	}
	if stop == 0 {
		stop = last
	}
	return min(start, stop) <= n && n <= max(start, stop)
}

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
	if mod, _ := s.box.Changed(); mod == s.view.mod {
		return nil
	}
	return s.view.update(w, s.box.Snapshot(), allowExpunge)
}

// Idle sends the client each change as it happens.
func (s *session) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	for {
		_, changed := s.box.Changed()
		if err := s.sendChanges(w, true); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-changed:
		}
	}
}

// system pairs IMAP's flags with the mailbox's, in the order in which they are sent.
func system() []struct {
	name imap.Flag
	flag mailbox.Flags
} {
	return []struct {
		name imap.Flag
		flag mailbox.Flags
	}{
		{imap.FlagAnswered, mailbox.Answered},
		{imap.FlagFlagged, mailbox.Flagged},
		{imap.FlagDeleted, mailbox.Deleted},
		{imap.FlagSeen, mailbox.Seen},
		{imap.FlagDraft, mailbox.Draft},
	}
}

func toIMAP(flags mailbox.Flags) []imap.Flag {
	var list []imap.Flag
	for _, s := range system() {
		if flags&s.flag != 0 {
			list = append(list, s.name)
		}
	}
	return list
}

// fromIMAP drops flags that are not kept, as PERMANENTFLAGS announces (RFC 9051 §7.1).
func fromIMAP(list []imap.Flag) mailbox.Flags {
	var flags mailbox.Flags
	for _, name := range list {
		for _, s := range system() {
			if strings.EqualFold(string(name), string(s.name)) {
				flags |= s.flag
			}
		}
	}
	return flags
}
