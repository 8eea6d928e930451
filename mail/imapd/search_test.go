package imapd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway/gatewaytest"
)

// uids are the UIDs of the messages that a search finds.
func uids(t *testing.T, s *session, want *imap.SearchCriteria) string {
	t.Helper()
	data, err := s.Search(imapserver.NumKindUID, want, nil)
	gatewaytest.Must(t, err)
	return fmt.Sprint(data.All)
}

// code returns the response code of a refused search.
func code(t *testing.T, err error) imap.ResponseCode {
	t.Helper()
	answer, ok := errors.AsType[*imap.Error](err)
	if !ok || answer.Type != imap.StatusResponseTypeNo {
		t.Fatalf("error %v, want NO", err)
	}
	return answer.Code
}

func key(name, text string) *imap.SearchCriteria {
	switch name {
	case "BODY":
		return &imap.SearchCriteria{Body: []string{text}}
	case "TEXT":
		return &imap.SearchCriteria{Text: []string{text}}
	default:
		return &imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: name, Value: text}}}
	}
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) + "\r\n" }

func content(kind, encoding, body string) string {
	return "Content-Type: " + kind + "\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n" + body
}

// Each search finds its own message, and no other.
func TestSearchDecodes(t *testing.T) {
	mixed := func(parts ...string) string {
		return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + strings.Join(parts, "\r\n--b\r\n") + "\r\n--b--\r\n"
	}
	tests := []struct{ name, message, key, text string }{
		{"body as it is", "Subject: x\r\n\r\nan apricot falls\r\n", "BODY", "APRICOT"},
		{"text in the header", "Subject: a cherry\r\n\r\nx\r\n", "TEXT", "Subject: A CHERRY"},
		{"body in base64", content("text/plain; charset=utf-8", "base64", encoded("eine grüne Birne")), "BODY", "GRÜNE birne"},
		{"text in base64", content("text/plain; charset=utf-8", "BASE64 (comment)", encoded("eine Pflaume")), "TEXT", "pflaume"},
		{"body in quoted-printable", content("text/plain; charset=utf-8", "quoted-printable", "une p=C3=AAche\r\n"), "BODY", "PÊCHE"},
		{"text in quoted-printable", content("text/plain; charset=utf-8", "quoted-printable", "un ma=C3=AFs\r\n"), "TEXT", "maïs"},
		{"subject as it is", "Subject: a lemon\r\n\r\nx\r\n", "Subject", "LEMON"},
		{"subject in UTF-8, Q", "Subject: =?utf-8?q?p=C3=A2t=C3=A9?=\r\n\r\nx\r\n", "Subject", "PÂTÉ"},
		{"subject in UTF-8, B", "Subject: =?UTF-8?B?" + strings.TrimSpace(encoded("żurawina")) + "?=\r\n\r\nx\r\n", "Subject", "ŻURAWINA"},
		{"subject in windows-1252", "Subject: =?windows-1252?Q?Preis_5_=80?=\r\n\r\nx\r\n", "Subject", "preis 5 €"},
		{"subject in iso-2022-jp", "Subject: =?iso-2022-jp?B?GyRCRnxLXDhsGyhC?=\r\n\r\nx\r\n", "Subject", "日本語"},
		{"sender in encoded words", "From: =?iso-8859-1?q?J=F6rg?= =?utf-8?q?_M=C3=BCller?= <j@example.com>\r\n\r\nx\r\n", "From", "jörg MÜLLER"},
		{"header of any name", "X-Tag: a mango\r\n\r\nx\r\n", "x-tag", "mango"},
		{"second part", mixed("\r\nfirst", content("text/html; charset=utf-8", "base64", encoded("<b>guava</b>"))), "BODY", "guava"},

		{"message in a message", mixed("\r\nx", "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n"+content("text/plain", "base64", encoded("a papaya"))), "BODY", "papaya"},
		{"subject of a message in a message", "Content-Type: message/rfc822\r\n\r\nSubject: =?utf-8?q?K=C3=BCrbis?=\r\n\r\nx\r\n", "BODY", "kürbis"},
		{"body in windows-1252", content("text/plain; charset=Windows-1252", "quoted-printable", "f=FCr 7 =80\r\n"), "BODY", "FÜR 7 €"},
		{"body in iso-2022-jp", content("text/plain; charset=iso-2022-jp", "7bit", "\x1b$BEl5~\x1b(B\r\n"), "BODY", "東京"},
		{"body in UTF-16", content("text/plain; charset=utf-16le", "base64", encoded("p\x00l\x00u\x00m\x00")), "BODY", "plum"},
		{"unknown charset", content("text/plain; charset=x-nobody-knows", "quoted-printable", "a fi=67 tree\r\n"), "BODY", "fig tree"},
		{"unknown charset of a word", "Subject: =?utf-8?q?d=C3=A4ttel?= =?x-nobody?q?_and_nut?=\r\n\r\nx\r\n", "Subject", "dättel and nut"},
		{"unknown encoding", content("text/plain", "x-uuencode", "an olive\r\n"), "BODY", "olive"},
		{"not base64 at all", content("text/plain", "base64", "hello walnut\r\n"), "BODY", "hello walnut"},
		{"before a break of base64", content("text/plain", "base64", encoded("an almond")+"!!!\r\n"), "BODY", "almond"},
		{"behind a break of base64", content("text/plain", "base64", encoded("x")+"-- \r\nfooter: a hazelnut\r\n"), "BODY", "hazelnut"},
		{"behind a break of quoted-printable", content("text/plain", "quoted-printable", "x\x01\r\na pecan\r\n"), "BODY", "pecan"},
		{"soft line breaks", content("text/plain", "quoted-printable", "a pine=\r\nappl=  \r\ne\r\n"), "BODY", "pineapple"},
		{"soft line break in a character", content("text/plain; charset=utf-8", "quoted-printable", "cr=C3=\r\n=A8me\r\n"), "BODY", "crème"},
		{"folded header", "Subject: a long\r\n rambutan\r\n\r\nx\r\n", "Subject", "long rambutan"},
		{"other forms of a letter", "Subject: x\r\n\r\nStraße, ΌΣΟΣ\r\n", "BODY", "STRASSE, όσος"},
		{"name of an attachment", mixed("Content-Type: application/pdf; name=\"=?utf-8?q?K=C3=A4se.pdf?=\"\r\n\r\nx"), "BODY", "käse.pdf"},
		{"text of a bounce", mixed("Content-Type: message/delivery-status\r\n\r\nAction: failed-quince"), "BODY", "failed-quince"},
	}
	f := newFixture(t)
	for _, test := range tests {
		f.put(t, test.message)
	}
	s := f.open(t)
	for i, test := range tests {
		if got, want := uids(t, s, key(test.key, test.text)), fmt.Sprint(i+1); got != want {
			t.Errorf("%s: found %q, want %q", test.name, got, want)
		}
	}
	for _, none := range []*imap.SearchCriteria{
		key("BODY", "a cherry"),    // in the header
		key("BODY", "quoted-prin"), // of the message, not of a part
		key("BODY", "--b"), key("TEXT", "utf-8?q"), key("Subject", "=?"),
	} {
		if got := uids(t, s, none); got != "" {
			t.Errorf("%+v: found %q, want none", none, got)
		}
	}
}

func TestSearchLimits(t *testing.T) {
	body := strings.Repeat("0123456789abcde\n", 1<<10)
	f := newFixture(t, "Subject: one\r\n\r\n"+body, "Subject: two\r\n\r\n"+body)
	s := f.open(t)
	if _, err := s.search(imapserver.NumKindUID, key("BODY", "needle"), 3*int64(len(body))); code(t, err) != imap.ResponseCodeLimit {
		t.Errorf("a search over its budget: %v", err)
	}
	if _, err := s.search(imapserver.NumKindUID, key("BODY", "needle"), 5*int64(len(body))); err != nil {
		t.Errorf("a search within its budget: %v", err)
	}
	if _, err := s.search(imapserver.NumKindUID, key("Subject", "two"), 1000); code(t, err) != imap.ResponseCodeLimit {
		t.Errorf("a search of headers over its budget: %v", err)
	}
	words := newFixture(t, "Subject: "+strings.Repeat("=?koi8-r?q?x?= ", 1000)+"\r\n\r\n").open(t)
	if _, err := words.search(imapserver.NumKindUID, key("Subject", "two"), 100<<10); code(t, err) != imap.ResponseCodeLimit {
		t.Errorf("1,000 words in a charset: %v", err)
	}
	for n, want := range map[int]bool{100: true, 101: false} {
		many := &imap.SearchCriteria{Body: make([]string, n)}
		if _, err := s.Search(imapserver.NumKindUID, many, nil); (err == nil) != want || err != nil && code(t, err) != imap.ResponseCodeLimit {
			t.Errorf("%d keys: %v", n, err)
		}
	}
	deep := imap.SearchCriteria{}
	for range 200 {
		deep = imap.SearchCriteria{Not: []imap.SearchCriteria{deep}}
	}
	if _, err := s.Search(imapserver.NumKindUID, &deep, nil); err == nil || code(t, err) != imap.ResponseCodeLimit {
		t.Errorf("200 NOT: %v", err)
	}
}

// Damaged messages make a search of their text fail, which names them all. Others work as before.
func TestSearchDamaged(t *testing.T) {
	f := newFixture(t, "Subject: one\r\n\r\nx\r\n", long, "Subject: three\r\n\r\nneedle\r\n", long)
	gatewaytest.Must(t, os.Truncate(f.file(t, 2), 3))
	gatewaytest.Must(t, os.Remove(f.file(t, 4)))
	s := f.open(t)
	for _, name := range []string{"BODY", "TEXT", "Subject"} {
		_, err := s.Search(imapserver.NumKindUID, key(name, "needle"), nil)
		if err == nil || code(t, err) != imap.ResponseCodeServerBug || !strings.Contains(err.Error(), "UID 2,4,") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := f.log.Count("imap command failed"); n != 3 {
		t.Errorf("%d log lines for 3 searches: %s", n, f.log)
	}
	others := key("BODY", "needle")
	others.UID = []imap.UIDSet{imap.UIDSetNum(1, 3)}
	if got := uids(t, s, others); got != "3" {
		t.Errorf("a search of the others finds %q", got)
	}
	if got := uids(t, s, &imap.SearchCriteria{}); got != "1:4" {
		t.Errorf("ALL finds %q", got)
	}
}

// Many damaged messages make no long answer.
func TestUnreadableIsShort(t *testing.T) {
	var odd imap.UIDSet
	for uid := imap.UID(1); uid < 2000; uid += 2 {
		odd.AddNum(uid)
	}
	err := newFixture(t).open(t).unreadable(odd, errDamaged)
	if len(err.Error()) > 400 || !strings.Contains(err.Error(), "UID 1,3,5,") || !strings.Contains(err.Error(), " and others,") {
		t.Error(err)
	}
}

// A message that another session expunges while a search runs is left out.
func TestSearchVanished(t *testing.T) {
	for _, name := range []string{"BODY", "TEXT"} {
		synctest.Test(t, func(t *testing.T) {
			const text = "Subject: x\r\n\r\nneedle\r\n"
			f := newFixture(t, text, text, text)
			s := f.open(t)
			for range maxParsing {
				f.parsing <- struct{}{}
			}
			found := make(chan string)
			go func() {
				data, err := s.Search(imapserver.NumKindUID, key(name, "needle"), nil)
				if err != nil {
					found <- err.Error()
					return
				}
				found <- fmt.Sprint(data.All)
			}()
			synctest.Wait() // it has its list of messages, and waits to read the first one
			gatewaytest.Must(t, f.box.Expunge([]uint32{2}))
			for range maxParsing {
				<-f.parsing
			}
			if got := <-found; got != "1,3" {
				t.Errorf("%s finds %q, want 1,3", name, got)
			}
		})
	}
}
