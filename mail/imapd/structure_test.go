package imapd

import (
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"lodge/mail/mime"
)

// Every part that BODYSTRUCTURE lists is found by its number, with the listed number of octets.
func FuzzStructure(f *testing.F) {
	f.Add("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nin\r\n--b\r\n\r\nx\r\n--b--\r\n")
	f.Add("Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\n\r\n--b--")
	f.Add("Subject: x\r\n\r\nhi\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := strings.NewReader(text)
		root, err := mime.Walk(r, r.Size())
		if err != nil {
			t.Fatal(err)
		}
		numbered(t, root, r.Size(), structure(r, root), nil)
	})
}

// numbered checks a message's structure; path is that of the part it is in.
func numbered(t *testing.T, root *mime.Part, size int64, message imap.BodyStructure, path []int) {
	t.Helper()
	message.Walk(func(below []int, part imap.BodyStructure) bool {
		single, ok := part.(*imap.BodyStructureSinglePart)
		if !ok {
			return true
		}
		at := append(append([]int{}, path...), below...)
		span := locate(root, &imap.FetchItemBodySection{Part: at}, size)
		if span.Len() != int64(single.Size) || root.Find(at) == nil {
			t.Fatalf("BODY[%v] has %d octets, BODYSTRUCTURE says %d", at, span.Len(), single.Size)
		}
		if inner := single.MessageRFC822; inner != nil {
			numbered(t, root, size, inner.BodyStructure, at)
		}
		return true
	})
}
