package mailbox

import (
	"strings"

	"lodge/gateway"
)

// Flags are the system flags of RFC 9051 §2.3.2 that are kept, and up to MaxKeywords keywords, whose
// names Snapshot.Keywords has.
type Flags uint64

// The flags.
const (
	Seen Flags = 1 << iota
	Answered
	Flagged
	Deleted
	Draft

	AllFlags          = Seen | Answered | Flagged | Deleted | Draft
	AllKeywords Flags = (1<<MaxKeywords - 1) << firstKeyword

	local  Flags = 1 << 6 // it came by IMAP, and is not delivered into the guest
	parked Flags = 1 << 7 // behind the cursor without a copy in the guest: see Box.Park

	firstKeyword = 8
)

// Limits of keywords.
const (
	MaxKeywords     = 32 // of one mailbox; none is removed, so that no message gets another one's
	MaxKeywordBytes = 64
)

// words are the keywords alone, as the log and the index have them.
func (f Flags) words() uint32 { return uint32(f >> firstKeyword) } //nolint:gosec // there are MaxKeywords

func wordFlags(words uint32) Flags { return Flags(words) << firstKeyword }

// KeywordAt returns the flag of the keyword that is at i of Snapshot.Keywords.
func KeywordAt(i int) Flags { return 1 << (firstKeyword + i) }

// Keyword returns the flag of a keyword, in upper or lower case; 0 if no message ever had it.
func (s Snapshot) Keyword(name string) Flags {
	for i, known := range s.Keywords {
		if strings.EqualFold(known, name) {
			return KeywordAt(i)
		}
	}
	return 0
}

// Keywords returns the flags of keywords, which it makes if they are new, on disk. A name is of printable
// ASCII without spaces, of at most MaxKeywordBytes (else KindInvalid). KindConflict: there would be more than
// MaxKeywords; none is made then.
func (b *Box) Keywords(names []string) (Flags, error) {
	b.naming.Lock()
	defer b.naming.Unlock()
	s := b.Snapshot()
	all := s.Keywords[:len(s.Keywords):len(s.Keywords)] // so that append copies it
	for _, name := range names {
		if !isKeyword(name) {
			return 0, gateway.Invalid("not a keyword: %.100q", name).
				WithHint("Use 1 to %d letters, digits and marks of ASCII.", MaxKeywordBytes)
		}
		s.Keywords = all
		if s.Keyword(name) == 0 {
			all = append(all, name)
		}
	}
	if len(all) > MaxKeywords {
		return 0, gateway.Errorf(gateway.KindConflict, "a mailbox has at most %d keywords", MaxKeywords).
			WithHint("Use keywords that it has.")
	}
	if len(all) > len(b.Snapshot().Keywords) {
		if err := b.do(keywordFrame(all)); err != nil {
			return 0, err
		}
	}
	s.Keywords = all
	var flags Flags
	for _, name := range names {
		flags |= s.Keyword(name)
	}
	return flags, nil
}

func isKeyword(name string) bool {
	return name != "" && len(name) <= MaxKeywordBytes && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// keywordFrame records all keywords of a mailbox, in their order.
func keywordFrame(names []string) *frame {
	return &frame{kind: kindKeywords, meta: []byte(strings.Join(names, " "))}
}

// decodeKeywords reads the meta of a keywordFrame. It fails with errFrame.
func decodeKeywords(meta []byte) ([]string, error) {
	names := strings.Split(string(meta), " ")
	for _, name := range names {
		if !isKeyword(name) || len(names) > MaxKeywords {
			return nil, errFrame
		}
	}
	return names, nil
}
