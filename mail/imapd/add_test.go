package imapd

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

const letter = "Subject: x\r\n\r\nbody\r\n"

// A message that is appended has its flags, keywords and date; it is copied and moved with them, and other
// sessions see that.
func TestAppendCopyMove(t *testing.T) {
	f := newFixture(t)
	p := f.serve(t)
	c, other := p.dial(t), p.dial(t)
	other.command("SELECT Archive")
	if line := c.append(`APPEND Sent (\Seen $Label1 \Recent \Odd) "20-Nov-2026 12:00:00 +0000"`, letter); !strings.HasPrefix(line, "a OK [APPENDUID ") {
		t.Fatal(line)
	}
	got := c.command("SELECT Sent")
	if !strings.Contains(got, `* FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Label1)`) || !strings.Contains(got, `[PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft $Label1 \*)]`) {
		t.Errorf("SELECT: %s", got)
	}
	want := `(UID 1 FLAGS (\Seen $Label1) INTERNALDATE "20-Nov-2026 12:00:00 +0000" RFC822.SIZE 20)`
	if got := c.command("FETCH 1 (UID FLAGS INTERNALDATE RFC822.SIZE)"); got != "* 1 FETCH "+want {
		t.Errorf("FETCH: %s", got)
	}
	c.send("UID COPY 1 Archive")
	validity := f.validity(t, "Archive")
	if line := c.line("a "); line != fmt.Sprintf("a OK [COPYUID %d 1 1] COPY completed", validity) {
		t.Error(line)
	}
	if got := c.command("MOVE 1:* Archive"); got != fmt.Sprintf("* OK [COPYUID %d 1 2] COPY completed\n* 1 EXPUNGE", validity) {
		t.Errorf("MOVE: %s", got)
	}
	if got := other.command("NOOP"); !strings.Contains(got, "* 2 EXISTS") || !strings.Contains(got, `* FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Label1)`) {
		t.Errorf("another session: %s", got)
	}
	want = strings.Replace(want, "UID 1", "UID 2", 1)
	if got := other.command("FETCH 2 (UID FLAGS INTERNALDATE RFC822.SIZE)"); got != "* 2 FETCH "+want {
		t.Errorf("FETCH: %s", got)
	}
	other.command("EXAMINE Archive")
	other.refused("MOVE 1 Trash", "NO")
	if e, ok := f.box.Pending(); ok {
		t.Errorf("%+v would be delivered", e)
	}
}

func (f *fixture) validity(t *testing.T, name string) uint32 {
	t.Helper()
	folders, err := f.config.Store.Folders(f.vm.ID)
	gatewaytest.Must(t, err)
	box, err := folders.Open(name)
	gatewaytest.Must(t, err)
	return box.Snapshot().Validity
}

func TestKeywordsByIMAP(t *testing.T) {
	c := newFixture(t, letter, letter).serve(t).dial(t)
	if got := c.command("STORE 1 +FLAGS (Work $Forwarded)"); !strings.Contains(got, "FLAGS (") || !strings.Contains(got, "Work") {
		t.Errorf("STORE: %s", got)
	}
	if got := c.command("SEARCH KEYWORD work"); got != "* SEARCH 1" {
		t.Errorf("SEARCH: %s", got)
	}
	if got := c.command("SEARCH UNKEYWORD Work"); got != "* SEARCH 2" {
		t.Errorf("SEARCH: %s", got)
	}
	if got := c.command("STORE 1 -FLAGS (WORK unknown)"); strings.Contains(got, "Work") || !strings.Contains(got, "$Forwarded") {
		t.Errorf("STORE: %s", got)
	}
	if got := c.command(`STORE 1 FLAGS (\Seen)`); got != `* 1 FETCH (UID 1 FLAGS (\Seen))` {
		t.Errorf("STORE: %s", got)
	}
	var many []string
	for i := range 31 {
		many = append(many, fmt.Sprint("k", i))
	}
	c.refused("STORE 2 +FLAGS ("+strings.Join(many, " ")+")", "NO [LIMIT]")
	c.command("STORE 2 +FLAGS (" + strings.Join(many[:30], " ") + ")")
	if got := c.command("SELECT INBOX"); strings.Contains(got, `\*`) || !strings.Contains(got, "k29") {
		t.Errorf("SELECT: %s", got)
	}
	if line := c.append("APPEND INBOX (one-more k1)", letter); !strings.HasPrefix(line, "a OK") {
		t.Error(line)
	}
}

// A literal that is too large, empty, cut off or without an announcement adds nothing, and the store stays
// as it is.
func TestHostileLiterals(t *testing.T) {
	f := newFixture(t, letter)
	p := f.serve(t)
	c := p.dial(t)
	if line := c.append("APPEND INBOX", ""); !strings.HasPrefix(line, "a NO [CANNOT]") {
		t.Error(line)
	}
	for _, size := range []string{"1048577", "99999999999", "9223372036854775807"} {
		c.refused("APPEND INBOX {"+size+"}", "NO [TOOBIG]")
	}
	for _, size := range []string{"-1", "18446744073709551616", "x", "1", ""} {
		cut := p.dial(t)
		_, err := io.WriteString(cut, "a APPEND INBOX {"+size+"}\r\n")
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, cut.Close())
	}
	cut := p.dial(t)
	cut.send("APPEND INBOX {1000}")
	cut.line("+")
	_, err := io.WriteString(cut, letter)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, cut.Close())
	if line := c.append("APPEND INBOX", strings.Repeat("x", 1<<20)); !strings.HasPrefix(line, "a OK") {
		t.Error(line)
	}
	c.command("NOOP")
	if n := f.box.Snapshot().Entries.Len(); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestAppendOverQuota(t *testing.T) {
	f := newFixture(t)
	f.config.Store.Obey(func(gateway.ID) gateway.MailSettings { return gateway.MailSettings{QuotaBytes: 50} })
	c := f.serve(t).dial(t)
	if line := c.append("APPEND Sent", letter); !strings.HasPrefix(line, "a OK") {
		t.Fatal(line)
	}
	c.command("SELECT Sent")
	if line := c.append("APPEND INBOX", letter+letter); !strings.HasPrefix(line, "a NO [OVERQUOTA]") {
		t.Error(line)
	}
	c.command("COPY 1 Archive")
	c.refused("COPY 1 Archive", "NO [OVERQUOTA]")
	c.command("MOVE 1 Trash")
}

// What a session has selected may be deleted by another one: it gets NO, and goes on.
func TestSelectedFolderIsDeleted(t *testing.T) {
	p := newFixture(t).serve(t)
	c, other := p.dial(t), p.dial(t)
	c.command("CREATE tmp")
	if line := c.append("APPEND tmp", letter); !strings.HasPrefix(line, "a OK") {
		t.Fatal(line)
	}
	c.command("SELECT tmp")
	other.command("DELETE tmp")
	c.refused(`STORE 1 +FLAGS (\Seen)`, "NO")
	c.refused("FETCH 1 BODY[]", "NO")
	c.refused("COPY 1 Trash", "NO")
	c.command("SELECT INBOX")
}

// A client that idles in a folder is notified of what others do there.
func TestIdleInFolder(t *testing.T) {
	p := newFixture(t).serve(t)
	c, other := p.dial(t), p.dial(t)
	c.command("SELECT Sent")
	c.send("IDLE")
	c.line("+")
	if line := other.append("APPEND Sent", letter); !strings.HasPrefix(line, "a OK") {
		t.Fatal(line)
	}
	c.line("* 1 EXISTS")
	other.command("SELECT Sent")
	other.send("MOVE 1 Trash")
	other.rest()
	c.line("* 1 EXPUNGE")
	_, err := io.WriteString(c, "DONE\r\n")
	gatewaytest.Must(t, err)
	c.line("a OK")
}

// What clients add is counted as mail that comes in is; what is refused counts for nothing.
func TestAddedBytesAreTaken(t *testing.T) {
	f := newFixture(t)
	left := int64(3 * len(letter))
	f.config.Take = func(_ gateway.ID, bytes int64) (undo func(), ok bool) {
		if bytes > left {
			return nil, false
		}
		left -= bytes
		return func() { left += bytes }, true
	}
	c := f.serve(t).dial(t)
	for range 2 {
		if line := c.append("APPEND INBOX", letter); !strings.HasPrefix(line, "a OK") {
			t.Fatal(line)
		}
	}
	c.command("SELECT INBOX")
	c.refused("COPY 1:2 Archive", "NO [LIMIT]")
	c.command("COPY 1 Archive")
	if line := c.append("APPEND INBOX", letter); !strings.HasPrefix(line, "a NO [LIMIT]") || left != 0 {
		t.Error(line, left)
	}
}
