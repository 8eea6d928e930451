package imapd

import (
	"errors"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

const (
	maxKeys     = 100     // of one SEARCH, those in NOT and OR included
	maxSearched = 1 << 30 // bytes of messages that one SEARCH reads and decodes
)

// Search finds messages. The strings of a criterion are compared with decoded text, see finder.
//
// A message that was expunged meanwhile is left out. One that cannot be read makes the command fail
// with its UID, once all others were tested. A search with more keys than maxKeys, or one that reads
// more than maxSearched, fails with LIMIT (RFC 5530 §3).
func (s *session) Search(kind imapserver.NumKind, criteria *imap.SearchCriteria, _ *imap.SearchOptions) (*imap.SearchData, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.search(kind, criteria, maxSearched)
}

// search reads at most limit bytes. The caller holds s.turn.
func (s *session) search(kind imapserver.NumKind, criteria *imap.SearchCriteria, limit int64) (*imap.SearchData, error) {
	if keys(criteria) > maxKeys {
		return nil, no(imap.ResponseCodeLimit, "More than 100 search keys: divide the search")
	}
	found := result{kind: kind}
	left := &budget{limit}
	look := newFinder(left)
	var unreadable imap.UIDSet
	var cause error
	picked, now := s.pick(imap.UIDSet{{Start: 1, Stop: 0}})
	for _, m := range picked {
		c := candidate{selected: m, session: s, finder: look, now: &now}
		fits, err := c.fits(criteria)
		c.close()
		switch {
		case left.spent():
			return nil, no(imap.ResponseCodeLimit, "The search reads more than 1 GiB of messages: search fewer, by UID or SINCE")
		case gateway.KindOf(err) == gateway.KindNotFound: // expunged meanwhile
		case err != nil:
			unreadable.AddNum(imap.UID(m.UID))
			cause = err
		case fits:
			found.add(m)
		}
	}
	if cause != nil {
		return nil, s.unreadable(unreadable, cause)
	}
	return found.data(), nil
}

// keys counts the criteria that cost something for each message.
func keys(c *imap.SearchCriteria) int {
	n := len(c.SeqNum) + len(c.UID) + len(c.Flag) + len(c.NotFlag) + len(c.Header) + len(c.Body) + len(c.Text)
	for i := range c.Not {
		n += 1 + keys(&c.Not[i])
	}
	for i := range c.Or {
		n += 1 + keys(&c.Or[i][0]) + keys(&c.Or[i][1])
	}
	return n
}

// unreadable is the answer to a search that could not read some messages.
func (s *session) unreadable(uids imap.UIDSet, cause error) error {
	s.server.config.Logger.Error("imap command failed", gateway.LogVM(s.vm), "err", cause)
	const most = 200
	list := uids.String()
	if len(list) > most {
		list = list[:strings.LastIndexByte(list[:most], ',')] + " and others"
	}
	return no(imap.ResponseCodeServerBug, "Cannot read UID "+list+", see lodged's log; a search of other UIDs works")
}

// result collects the messages that fit.
type result struct {
	kind imapserver.NumKind
	seqs imap.SeqSet
	uids imap.UIDSet
	imap.SearchData
}

func (r *result) add(m selected) {
	num := m.seq
	if r.kind == imapserver.NumKindUID {
		num = m.UID
	}
	r.seqs.AddNum(m.seq)
	r.uids.AddNum(imap.UID(m.UID))
	if r.Min == 0 {
		r.Min = num
	}
	r.Max = num
	r.Count++
}

func (r *result) data() *imap.SearchData {
	r.All = r.seqs
	if r.kind == imapserver.NumKindUID {
		r.All = r.uids
	}
	return &r.SearchData
}

// budget is what a search may still read.
type budget struct{ left int64 }

var errLimit = errors.New("search limit reached")

func (b *budget) spend(n int64) error {
	b.left -= n
	if b.spent() {
		return errLimit
	}
	return nil
}

func (b *budget) spent() bool { return b.left < 0 }

// metered is a message that is read at the cost of a budget.
type metered struct {
	*mailbox.Content
	budget *budget
}

// ReadAt implements io.ReaderAt.
func (m metered) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.Content.ReadAt(p, off)
	if short := m.budget.spend(int64(n)); short != nil {
		return 0, short
	}
	return n, err // readers compare io.EOF
}
