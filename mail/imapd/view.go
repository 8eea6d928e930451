package imapd

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"lodge/mail/mailbox"
)

// view is the mailbox as it was last sent to a client: the message with sequence number n has UID
// uids[n-1].
type view struct {
	uids     []uint32
	pages    []sentPage
	mod      uint64 // number of changes that the client was sent
	keywords int    // that it was sent
	readOnly bool   // EXAMINE
}

// sentPage is a page of the list that was sent. It does not hold the page itself, so that clients that
// do not ask for changes keep no old lists in memory.
type sentPage struct {
	id         uint64
	start, end int // of its messages in uids
}

func newView(now mailbox.Snapshot, readOnly bool) *view {
	v := &view{readOnly: readOnly, keywords: len(now.Keywords), uids: make([]uint32, 0, now.Entries.Len())}
	for _, p := range now.Entries.Pages() {
		v.uids = p.AppendUIDs(v.uids)
	}
	v.sent(now)
	return v
}

// sent records that uids are those of now.
func (v *view) sent(now mailbox.Snapshot) {
	v.mod, v.pages = now.Mod, v.pages[:0]
	n := 0
	for _, p := range now.Entries.Pages() {
		v.pages = append(v.pages, sentPage{p.ID, n, n + p.Len()})
		n += p.Len()
	}
}

// updates sends changes to a client; *imapserver.UpdateWriter implements it.
type updates interface {
	WriteExpunge(seqNum uint32) error
	WriteNumMessages(n uint32) error
	WriteMailboxFlags(flags []imap.Flag) error
	WriteMessageFlags(seqNum uint32, uid imap.UID, flags []imap.Flag) error
}

// update sends the client what has changed. If expunges are not allowed (RFC 9051 §7.5.1) and there
// is one, it sends nothing, so that the sequence numbers stay valid.
func (v *view) update(w updates, now mailbox.Snapshot, expunges bool) error {
	if len(now.Keywords) > v.keywords {
		v.keywords = len(now.Keywords)
		if err := w.WriteMailboxFlags(toIMAP(mailbox.AllFlags|mailbox.AllKeywords, now.Keywords)); err != nil {
			return err
		}
	}
	if now.Mod == v.mod {
		return nil
	}
	gone, added, changed := v.compare(now.Entries)
	if len(gone) > 0 && !expunges {
		return nil
	}
	for _, seq := range slices.Backward(gone) { // so that the numbers before stay as they are
		if err := w.WriteExpunge(seq); err != nil {
			return err
		}
		v.uids = slices.Delete(v.uids, int(seq)-1, int(seq))
	}
	v.uids = append(v.uids, added...)
	if len(added) > 0 {
		if err := w.WriteNumMessages(count(v.uids)); err != nil {
			return err
		}
	}
	for _, m := range changed {
		if err := w.WriteMessageFlags(m.seq, imap.UID(m.UID), toIMAP(m.Flags, now.Keywords)); err != nil {
			return err
		}
	}
	v.sent(now)
	return nil
}

// compare returns the sequence numbers of messages that are in the view but no longer in the mailbox, the
// UIDs of new ones, and the messages whose flags have changed, with their numbers in the mailbox. It passes
// over the pages that are as they were sent. New messages have higher UIDs than all in the view.
func (v *view) compare(list mailbox.List) (gone, added []uint32, changed []selected) {
	n, known := 0, v.pages // known are the pages from n on
	for _, p := range list.Pages() {
		for len(known) > 0 && known[0].start < n {
			known = known[1:]
		}
		if len(known) > 0 && p.ID != 0 && known[0] == (sentPage{p.ID, n, n + p.Len()}) {
			n = known[0].end
			continue
		}
		for _, e := range p.Entries() {
			for ; n < len(v.uids) && v.uids[n] < e.UID; n++ {
				gone = append(gone, uint32(n)+1) // as count
			}
			if n == len(v.uids) {
				added = append(added, e.UID)
				continue
			}
			n++
			if e.Mod > v.mod {
				changed = append(changed, selected{e, uint32(n - len(gone))}) // as count
			}
		}
	}
	for ; n < len(v.uids); n++ {
		gone = append(gone, uint32(n)+1) // as count
	}
	return gone, added, changed
}

// selected is a message of a command's set.
type selected struct {
	mailbox.Entry
	seq uint32
}

// pick returns the messages of a set that are in the view and still in the mailbox.
func (v *view) pick(set imap.NumSet, now mailbox.Snapshot) []selected {
	var picked []selected
	for _, r := range v.ranges(set) {
		for n := r.from; n < r.to; n++ {
			if e, ok := now.Entries.Find(v.uids[n]); ok {
				picked = append(picked, selected{e, uint32(n) + 1}) // as count
			}
		}
	}
	return picked
}

// span is a part of v.uids, from up to to.
type span struct{ from, to int }

// ranges returns the parts of v.uids that are in a set, in order and apart.
func (v *view) ranges(set imap.NumSet) []span {
	var all []span
	add := func(start, stop, last uint32, find func(uint32) int) {
		if start == 0 {
			start = last
		}
		if stop == 0 {
			stop = last
		}
		from, to := find(min(start, stop)), len(v.uids)
		if highest := max(start, stop); highest < math.MaxUint32 {
			to = find(highest + 1)
		}
		if from < to {
			all = append(all, span{from, to})
		}
	}
	switch set := set.(type) {
	case imap.SeqSet:
		for _, r := range set {
			add(r.Start, r.Stop, count(v.uids), func(seq uint32) int { return min(int(max(seq, 1))-1, len(v.uids)) })
		}
	case imap.UIDSet:
		var last uint32
		if len(v.uids) > 0 {
			last = v.uids[len(v.uids)-1]
		}
		for _, r := range set {
			add(uint32(r.Start), uint32(r.Stop), last, func(uid uint32) int { i, _ := slices.BinarySearch(v.uids, uid); return i })
		}
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	apart := all[:0]
	for _, r := range all {
		if n := len(apart); n > 0 && r.from <= apart[n-1].to {
			apart[n-1].to = max(apart[n-1].to, r.to)
		} else {
			apart = append(apart, r)
		}
	}
	return apart
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

// toIMAP names flags; keywords are all those of the mailbox.
func toIMAP(flags mailbox.Flags, keywords []string) []imap.Flag {
	var list []imap.Flag
	for _, s := range system() {
		if flags&s.flag != 0 {
			list = append(list, s.name)
		}
	}
	for i, name := range keywords {
		if flags&mailbox.KeywordAt(i) != 0 {
			list = append(list, imap.Flag(name))
		}
	}
	return list
}

// fromIMAP returns the system flags of a list. Others are keywords, or not kept.
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
