package mail

import (
	"bufio"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"lodge/gateway/gatewaytest"
)

// Messages of hostile structure are served, and the connection stays.
func TestHostileMIME(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	var deep strings.Builder
	deep.WriteString("Subject: deep\r\n")
	for i := range 3000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	f.sendRaw(t, vm, deep.String())
	f.sendRaw(t, vm, "Subject: x\r\n"+strings.Repeat("X-Long: y\r\n", 200_000)+"\r\n")
	f.sendRaw(t, vm, "no header at all\r\n")
	for _, shape := range []string{
		"Content-Type: multipart/mixed\r\n\r\nx\r\n", "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n",
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n", "Content-Type: multipart\r\n\r\nx\r\n",
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/x\r\n--b--\r\n",
		"Content-Type: multipart/mixed;\r\n boundary=" + strings.Repeat("b", 10000) + "\r\n\r\nx\r\n",
	} {
		f.sendRaw(t, vm, shape)
	}
	c := dial(t, f.serveIMAP(t, vm))
	r := bufio.NewReader(c)
	c.send("a SELECT INBOX\r\nb FETCH 1:* (ENVELOPE BODY BODYSTRUCTURE BODY.PEEK[1.1.1] BODY.PEEK[HEADER.FIELDS (TO)] BODY.PEEK[]<9223372036854775807.9223372036854775807>)\r\n")
	for {
		line, err := r.ReadString('\n')
		gatewaytest.Must(t, err)
		if strings.HasPrefix(line, "b ") {
			if !strings.HasPrefix(line, "b OK") {
				t.Error(line)
			}
			break
		}
	}
}

// Chosen header fields are made one section at a time: one command can ask for a large header more
// than a thousand times.
func TestIMAPManySectionsOfALargeHeader(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	f.sendRaw(t, vm, "Subject: x\r\n"+strings.Repeat("X-Long: "+strings.Repeat("y", 900)+"\r\n", 1100)+"\r\n")
	c := dial(t, f.serveIMAP(t, vm))
	r := bufio.NewReader(c)
	c.send("a SELECT INBOX\r\nb FETCH 1 (" + strings.Repeat("BODY.PEEK[HEADER.FIELDS.NOT (A)] ", 1400) + "UID)\r\n")
	for {
		line, err := r.ReadString('\n')
		gatewaytest.Must(t, err)
		if strings.HasPrefix(line, "b ") {
			t.Fatal(line)
		}
		if strings.Contains(line, "FETCH (") {
			break
		}
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapAlloc > 500<<20 { // of all tests that run at the moment; the sections are 1.4 GB
		t.Errorf("%d MB are in use while the response is sent", memory.HeapAlloc>>20)
	}
}

// A message whose body is damaged on disk costs only itself: the others are sent, and the command fails.
func TestIMAPDamagedMessage(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	f.sendRaw(t, vm, "Subject: cut\r\n\r\nbody\r\n")
	f.sendRaw(t, vm, "Subject: two\r\n\r\nwhole\r\n")
	f.spoil(t, vm, "body\r\n")
	c := imapDial(t, f.serveIMAP(t, vm), nil)
	_, err := c.Select("INBOX", nil).Wait()
	gatewaytest.Must(t, err)
	text := &imap.FetchItemBodySection{Peek: true, Specifier: imap.PartSpecifierText}
	fetch := c.Fetch(imap.SeqSetNum(1, 2), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{text}})
	got, err := fetch.Collect()
	if err == nil || len(got) != 1 || string(got[0].FindBodySection(text)) != "whole\r\n" {
		t.Errorf("%v, %+v", err, got)
	}
	gatewaytest.Must(t, c.Noop().Wait())
}
