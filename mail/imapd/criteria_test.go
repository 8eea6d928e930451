package imapd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

func day(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }

func TestCriteria(t *testing.T) {
	f := newFixture(t,
		"Date: Thu, 19 Nov 2026 23:30:00 -0800\r\nSubject: one\r\n\r\nx\r\n",
		"Date: Sat, 21 Nov 2026 01:00:00 +0000\r\nSubject: two\r\nX-Empty:\r\n\r\n"+strings.Repeat("y", 1000)+"\r\n",
		"Date: soon\r\nSubject: three\r\n\r\nx\r\n",
		"Subject: four\r\n\r\nx\r\n")
	gatewaytest.Must(t, f.box.SetFlags([]uint32{1, 2}, mailbox.Seen, 0))
	gatewaytest.Must(t, f.box.SetFlags([]uint32{2}, mailbox.Flagged, 0))
	s := f.open(t)
	two, none := *key("Subject", "two"), imap.SearchCriteria{Smaller: 1}
	for name, test := range map[string]struct {
		what imap.SearchCriteria
		want string
	}{
		"all":                    {imap.SearchCriteria{}, "1:4"},
		"seen":                   {imap.SearchCriteria{Flag: []imap.Flag{imap.FlagSeen}}, "1:2"},
		"seen and not flagged":   {imap.SearchCriteria{Flag: []imap.Flag{imap.FlagSeen}, NotFlag: []imap.Flag{imap.FlagFlagged}}, "1"},
		"flag in another case":   {imap.SearchCriteria{Flag: []imap.Flag{`\sEEN`}}, "1:2"},
		"keyword":                {imap.SearchCriteria{Flag: []imap.Flag{"$Junk"}}, ""},
		"no keyword":             {imap.SearchCriteria{NotFlag: []imap.Flag{"$Junk"}}, "1:4"},
		"larger":                 {imap.SearchCriteria{Larger: 500}, "2"},
		"smaller":                {imap.SearchCriteria{Smaller: 500}, "1,3:4"},
		"since its day":          {imap.SearchCriteria{Since: day(20)}, "1:4"},
		"since the next":         {imap.SearchCriteria{Since: day(21)}, ""},
		"before its day":         {imap.SearchCriteria{Before: day(20)}, ""},
		"before the next":        {imap.SearchCriteria{Before: day(21)}, "1:4"},
		"sent on, in its zone":   {imap.SearchCriteria{SentSince: day(19), SentBefore: day(20)}, "1"},
		"sent since":             {imap.SearchCriteria{SentSince: day(20)}, "2"},
		"sent before":            {imap.SearchCriteria{SentBefore: day(30)}, "1:2"},
		"sequence numbers":       {imap.SearchCriteria{SeqNum: []imap.SeqSet{{{Start: 2, Stop: 3}}}}, "2:3"},
		"two sets":               {imap.SearchCriteria{SeqNum: []imap.SeqSet{{{Start: 2, Stop: 3}}}, UID: []imap.UIDSet{imap.UIDSetNum(1, 3)}}, "3"},
		"last UID":               {imap.SearchCriteria{UID: []imap.UIDSet{{{Start: 0, Stop: 0}}}}, "4"},
		"field that exists":      {*key("x-empty", ""), "2"},
		"field that does not":    {*key("x-other", ""), ""},
		"empty body":             {*key("BODY", ""), "1:4"},
		"two fields":             {imap.SearchCriteria{Header: append(two.Header, key("Subject", "one").Header...)}, ""},
		"not":                    {imap.SearchCriteria{Not: []imap.SearchCriteria{two}}, "1,3:4"},
		"not not":                {imap.SearchCriteria{Not: []imap.SearchCriteria{{Not: []imap.SearchCriteria{two}}}}, "2"},
		"neither":                {imap.SearchCriteria{Not: []imap.SearchCriteria{two, *key("Subject", "one")}}, "3:4"},
		"or":                     {imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{two, *key("Subject", "four")}}}, "2,4"},
		"or of nothing":          {imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{none, none}}}, ""},
		"both of two or":         {imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{two, *key("Subject", "one")}, {two, none}}}, "2"},
		"text and body together": {imap.SearchCriteria{Text: []string{"Subject: two"}, Body: []string{"yyy"}}, "2"},
	} {
		if got := uids(t, s, &test.what); got != test.want {
			t.Errorf("%s: found %q, want %q", name, got, test.want)
		}
	}
}

// SEARCH has sequence numbers, UID SEARCH has UIDs, and MIN, MAX and COUNT are those of the same kind.
func TestSearchNumbers(t *testing.T) {
	f := newFixture(t, "\r\n1", "\r\n2", "\r\n3")
	gatewaytest.Must(t, f.box.Expunge([]uint32{1}))
	s := f.open(t)
	for kind, want := range map[imapserver.NumKind]string{imapserver.NumKindSeq: "1:2 1 2 2", imapserver.NumKindUID: "2:3 2 3 2"} {
		data, err := s.Search(kind, &imap.SearchCriteria{}, nil)
		gatewaytest.Must(t, err)
		if got := fmt.Sprint(data.All, data.Min, data.Max, data.Count); got != want {
			t.Errorf("kind %v: %s, want %s", kind, got, want)
		}
	}
}

// A search opens no message for criteria that the list of messages answers.
func TestCheapCriteriaComeFirst(t *testing.T) {
	s := newFixture(t, "Subject: x\r\n\r\nx\r\n").open(t)
	what := key("BODY", "x")
	what.Larger = 1000
	if _, err := s.search(imapserver.NumKindUID, what, 0); err != nil {
		t.Errorf("a search without a byte to read: %v", err)
	}
}
