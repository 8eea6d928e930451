package mail

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// serveIMAP serves IMAP to vm and returns the address.
func (f *fixture) serveIMAP(tb testing.TB, vm gateway.Identity) string {
	tb.Helper()
	l := listen(tb)
	go f.ServeIMAP(gatewaytest.Listener(l, vm)) // ends at Shutdown; its error would show as a failing client
	return l.Addr().String()
}

func imapDial(tb testing.TB, addr string, options *imapclient.Options) *imapclient.Client {
	tb.Helper()
	c, err := new(net.Dialer).DialContext(tb.Context(), "tcp", addr)
	gatewaytest.Must(tb, err)
	client := imapclient.New(c, options)
	tb.Cleanup(func() { client.Close() })
	gatewaytest.Must(tb, client.WaitGreeting())
	return client
}

const multipart = "From: Ann <ann@example.com>\r\nTo: x@blog\r\nSubject: =?utf-8?q?h=C3=A9llo?=\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n" +
	"Message-Id: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
	"--b\r\nContent-Type: text/plain\r\n\r\nfirst part\r\n--b\r\nContent-Type: application/pdf\r\n\r\nsecond\r\n--b--\r\n"

func (f *fixture) sendRaw(tb testing.TB, vm gateway.Identity, text string) string {
	tb.Helper()
	c, _ := hello(tb, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	c.ask("RCPT TO:<x@"+vm.Name+"."+domain+">", "250")
	c.ask("DATA", "354")
	c.ask(text+".", "250")
	return f.list(tb, vm)[0].QueueID
}

func TestIMAPClient(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	id := f.sendRaw(t, vm, multipart)
	f.sendRaw(t, vm, "Subject: two\r\n\r\nneedle\r\n")
	c := imapDial(t, f.serveIMAP(t, vm), nil)
	boxes, err := c.List("", "*", nil).Collect()
	gatewaytest.Must(t, err)
	if len(boxes) != 6 || boxes[0].Mailbox != "INBOX" || boxes[4].Mailbox != "Sent" || !slices.Contains(boxes[4].Attrs, imap.MailboxAttrSent) {
		t.Fatalf("LIST: %+v", boxes)
	}
	selected, err := c.Select("INBOX", nil).Wait()
	gatewaytest.Must(t, err)
	if selected.NumMessages != 2 || selected.UIDNext != 3 || selected.UIDValidity == 0 {
		t.Errorf("SELECT: %+v", selected)
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	part := &imap.FetchItemBodySection{Peek: true, Part: []int{1}}
	piece := &imap.FetchItemBodySection{Peek: true, Partial: &imap.SectionPartial{Offset: 3, Size: 9}}
	got, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{
		UID: true, Flags: true, Envelope: true, RFC822Size: true, InternalDate: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true}, BodySection: []*imap.FetchItemBodySection{whole, part, piece},
	}).Collect()
	gatewaytest.Must(t, err)
	want := f.read(t, vm, id)
	m := got[0]
	if !bytes.Equal(m.FindBodySection(whole), want) || m.RFC822Size != int64(len(want)) {
		t.Errorf("BODY[] is %q, want %q", m.FindBodySection(whole), want)
	}
	if text := string(m.FindBodySection(part)); text != "first part" {
		t.Errorf("BODY[1] is %q", text)
	}
	if text := m.FindBodySection(piece); !bytes.Equal(text, want[3:12]) {
		t.Errorf("BODY[]<3.9> is %q, want %q", text, want[3:12])
	}
	if m.Envelope.Subject != "héllo" || m.Envelope.From[0].Addr() != "ann@example.com" || m.BodyStructure.MediaType() != "multipart/mixed" {
		t.Errorf("%+v, %+v", m.Envelope, m.BodyStructure)
	}
	testSearch(t, c)
	testExpunge(t, f, c, vm)
}

func testSearch(t *testing.T, c *imapclient.Client) {
	t.Helper()
	for _, test := range []struct {
		name string
		what imap.SearchCriteria
		want string
	}{
		{"all", imap.SearchCriteria{}, "1:2"},
		{"text", imap.SearchCriteria{Body: []string{"NEEDLE"}}, "2"},
		{"header", imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "HÉL"}}}, "1"},
		{"not seen", imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}, "1:2"},
		{"seen", imap.SearchCriteria{Flag: []imap.Flag{imap.FlagSeen}}, ""},
		{"since", imap.SearchCriteria{Since: time.Now().Add(-48 * time.Hour)}, "1:2"},
		{"before", imap.SearchCriteria{Before: time.Now().Add(-48 * time.Hour)}, ""},
		{"sent", imap.SearchCriteria{SentSince: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)}, "1"},
		{"not", imap.SearchCriteria{Not: []imap.SearchCriteria{{Body: []string{"needle"}}}}, "1"},
		{"or", imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{{Body: []string{"needle"}}, {Body: []string{"first part"}}}}}, "1:2"},
		{"uid", imap.SearchCriteria{UID: []imap.UIDSet{{{Start: 2, Stop: 0}}}}, "2"},
	} {
		data, err := c.UIDSearch(&test.what, nil).Wait()
		gatewaytest.Must(t, err)
		if got := fmt.Sprint(data.All); got != test.want {
			t.Errorf("SEARCH %s: %q, want %q", test.name, got, test.want)
		}
	}
}

func testExpunge(t *testing.T, f *fixture, c *imapclient.Client, vm gateway.Identity) {
	t.Helper()
	stored, err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted, imap.FlagFlagged}}, nil).Collect()
	gatewaytest.Must(t, err)
	if len(stored) != 1 || len(stored[0].Flags) != 2 {
		t.Errorf("STORE: %+v", stored)
	}
	gone, err := c.Expunge().Collect()
	gatewaytest.Must(t, err)
	if len(gone) != 1 || gone[0] != 1 {
		t.Errorf("EXPUNGE: %v", gone)
	}
	if left := f.list(t, vm); len(left) != 1 || left[0].UID != 2 {
		t.Errorf("left: %+v", left)
	}
	for name, err := range map[string]error{
		"CREATE": c.Create("Sent", nil).Wait(),
		"DELETE": c.Delete("INBOX").Wait(),
		"SELECT": func() error { _, err := c.Select("no", nil).Wait(); return err }(),
	} {
		if err == nil {
			t.Errorf("%s was allowed", name)
		}
	}
}

// A client in IDLE is notified of new mail, and of what another session does.
func TestIdle(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	f.sendRaw(t, vm, "Subject: one\r\n\r\n1\r\n")
	addr := f.serveIMAP(t, vm)
	exists, expunged := make(chan uint32, 10), make(chan uint32, 10)
	c := imapDial(t, addr, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				exists <- *data.NumMessages
			}
		},
		Expunge: func(seq uint32) { expunged <- seq },
	}})
	_, err := c.Select("INBOX", nil).Wait()
	gatewaytest.Must(t, err)
	idle, err := c.Idle()
	gatewaytest.Must(t, err)
	f.sendRaw(t, vm, "Subject: two\r\n\r\n2\r\n")
	receive(t, exists, 2)
	other := imapDial(t, addr, nil)
	_, err = other.Select("INBOX", nil).Wait()
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, other.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsSet, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	gatewaytest.Must(t, other.Expunge().Close())
	receive(t, expunged, 1)
	gatewaytest.Must(t, idle.Close())
	gatewaytest.Must(t, idle.Wait())
}

// Clients that end IDLE in any way but DONE, while mail comes in, disturb nothing; the race
// detector looks on.
func TestIdleEndsWithoutDone(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	addr := f.serveIMAP(t, vm)
	for _, last := range []string{"", "NO\r\na3 FETCH 1:* FLAGS\r\na4 UNSELECT\r\n"} {
		var clients sync.WaitGroup
		for range 8 {
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
			gatewaytest.Must(t, err)
			lines := bufio.NewReader(c)
			_, err = io.WriteString(c, "a1 SELECT INBOX\r\na2 IDLE\r\n")
			gatewaytest.Must(t, err)
			for line := ""; !strings.HasPrefix(line, "+"); {
				line, err = lines.ReadString('\n')
				gatewaytest.Must(t, err)
			}
			clients.Go(func() {
				_, _ = lines.ReadString('\n') // the news of the first mail; then it leaves while more come in
				_, _ = io.WriteString(c, last)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, lines)
				_ = c.Close()
			})
		}
		for range 5 {
			f.sendRaw(t, vm, "Subject: one\r\n\r\n1\r\n")
		}
		clients.Wait()
	}
}

func receive(t *testing.T, from <-chan uint32, want uint32) {
	t.Helper()
	select {
	case got := <-from:
		if got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within 10 s")
	}
}

// A connection that comes from no VM, from a VM that is gone, or with an HTTP request is shown
// nothing.
func TestIMAPRefuses(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	for name, addr := range map[string]string{
		"no VM": f.serveIMAP(t, gateway.Identity{}), "gone VM": f.serveIMAP(t, gateway.Identity{ID: gateway.NewID(), Name: "blog"}),
	} {
		c := dial(t, addr)
		if got, _ := io.ReadAll(c.r); !bytes.HasPrefix(got, []byte("* BYE ")) {
			t.Errorf("%s: %q", name, got)
		}
	}
	c := dial(t, f.serveIMAP(t, vm))
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	got, _ := io.ReadAll(c.r)
	if !bytes.HasPrefix(got, []byte("* PREAUTH")) || !bytes.Contains(got, []byte("* BYE This is IMAP")) {
		t.Errorf("HTTP: %q", got)
	}
}

// Two VMs see each their own mail.
func TestTwoVMs(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	one, two := f.add(t, "one"), f.add(t, "two")
	f.sendRaw(t, one, "Subject: for one\r\n\r\nx\r\n")
	for vm, want := range map[gateway.Identity]uint32{one: 1, two: 0} {
		selected, err := imapDial(t, f.serveIMAP(t, vm), nil).Select("INBOX", nil).Wait()
		gatewaytest.Must(t, err)
		if selected.NumMessages != want {
			t.Errorf("%s sees %d messages, want %d", vm.Name, selected.NumMessages, want)
		}
	}
}

// mbsync brings all mail, in two runs, each message once, and carries flags back.
func TestMbsync(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	f.sendRaw(t, vm, multipart)
	host, port, _ := net.SplitHostPort(f.serveIMAP(t, vm))
	dir := t.TempDir()
	config := filepath.Join(dir, "rc")
	write(t, config, fmt.Appendf(nil, "IMAPStore far\nTunnel \"python3 %s/tunnel.py %s %s\"\n\nMaildirStore near\nInbox %s/inbox\n\n"+
		"Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync All\nExpunge Both\nSyncState %s/state\n", dir, host, port, dir, dir))
	write(t, filepath.Join(dir, "tunnel.py"), []byte(tunnel))
	sync := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "mbsync", "-c", config, "-a").CombinedOutput(); err != nil {
			t.Fatalf("mbsync: %v\n%s", err, out)
		}
	}
	sync()
	f.sendRaw(t, vm, "Subject: two\r\n\r\n2\r\n")
	sync()
	got := append(glob(t, dir+"/inbox/new/*"), glob(t, dir+"/inbox/cur/*")...)
	if len(got) != 2 {
		t.Fatalf("mbsync brought %v", got)
	}
	base, _, _ := strings.Cut(filepath.Base(got[0]), ":")
	gatewaytest.Must(t, os.Rename(got[0], filepath.Join(dir, "inbox/cur", base+":2,FS")))
	sync()
	box, err := f.store.Box(vm.ID)
	gatewaytest.Must(t, err)
	var flags mailbox.Flags
	for _, e := range box.Snapshot().Entries.All() {
		flags |= e.Flags
	}
	if flags != mailbox.Seen|mailbox.Flagged {
		t.Errorf("flags came back as %v", flags)
	}
}

// tunnel joins standard input and output to a socket, as mbsync's Tunnel requires for PREAUTH.
const tunnel = `import socket, sys, threading, os
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while True:
        d = os.read(0, 65536)
        if not d: break
        s.sendall(d)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while True:
    d = s.recv(65536)
    if not d: break
    os.write(1, d)
`

// Python's imaplib is what programs in a VM will use.
func TestPythonIMAP(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	f.sendRaw(t, vm, multipart)
	host, port, _ := net.SplitHostPort(f.serveIMAP(t, vm))
	script := `import imaplib, sys
m = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
assert m.state == "AUTH", m.state
print(m.select("INBOX"))
print(m.search(None, "UNSEEN")[1])
print(m.fetch("1", "(RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1][0][1])
print(m.fetch("1", "(RFC822)")[1][0][1][-15:])
print(m.search(None, "UNSEEN")[1])
print(m.append("INBOX", None, None, b"Subject: x\r\n\r\n"))
print(m.store("1", "+FLAGS", "\\Deleted")[0], m.expunge(), m.logout()[0])
`
	out, err := exec.CommandContext(t.Context(), "python3", "-c", script, host, port).CombinedOutput()
	want := `('OK', [b'1'])
[b'1']
b'Subject: =?utf-8?q?h=C3=A9llo?=\r\n\r\n'
b'second\r\n--b--\r\n'
[b'']
('OK', [b'[APPENDUID VALIDITY 2] APPEND completed'])
OK ('OK', [b'1']) BYE
`
	got := regexp.MustCompile(`UID \d{10}`).ReplaceAllString(string(out), "UID VALIDITY")
	if err != nil || got != want {
		t.Errorf("%v, got:\n%s\nwant:\n%s", err, got, want)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	gatewaytest.Must(t, err)
	return names
}
