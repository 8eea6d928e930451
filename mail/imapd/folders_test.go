package imapd

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// A pattern matches as in go-imap's own MatchList, whose time is not bounded.
func FuzzMatches(f *testing.F) {
	for _, seed := range [][3]string{{"", "*", "a/b"}, {"", "%", "a/b"}, {"a", "%", "a/b"}, {"", "a/%", "a/b"}, {"", "*b", "a/b"}, {"x", "/a*", "a"}, {"a/", "b%c*", "a/bxc/d"}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, ref, pattern, name string) {
		if len(pattern) > 12 || len(name) > 16 || strings.ContainsAny(ref, "*%") || strings.HasPrefix(strings.ToUpper(ref+pattern), "INBOX") {
			t.Skip()
		}
		if want := imapserver.MatchList(name, '/', ref, pattern); matches(absolute(ref, pattern), name) != want {
			t.Errorf("%q %q with %q: want %v", ref, pattern, name, want)
		}
	})
}

// A pattern of many wildcards takes no time that grows with their number.
func TestMatchesManyWildcards(t *testing.T) {
	name := strings.Repeat("a", mailbox.MaxFolderBytes)
	if matches(strings.Repeat("*a", maxPatternBytes/2-1)+"b", name) || !matches(strings.Repeat("*a", 200)+"*", name) {
		t.Error("wrong match")
	}
}

func TestInboxMatchesInAnyCase(t *testing.T) {
	for pattern, want := range map[string]bool{"inbox": true, "INB*": true, "inb%": true, "*": true, "inbox/*": false, "in": false} {
		if matchesAny([]string{absolute("", pattern)}, mailbox.Inbox) != want {
			t.Errorf("%s: want %v", pattern, want)
		}
	}
	if got := absolute("inbox", "a"); got != "INBOX/a" {
		t.Errorf("got %s", got)
	}
}

// refused sends a command, which must fail so.
func (c *client) refused(command, with string) {
	c.t.Helper()
	c.send(command)
	for {
		line := c.line("")
		if strings.HasPrefix(line, "a ") {
			if !strings.HasPrefix(line, "a "+with) {
				c.t.Errorf("%.100s: %s, want %s", command, line, with)
			}
			return
		}
	}
}

// append sends a message with a literal that is announced, and returns the tagged line.
func (c *client) append(command, message string) string {
	c.t.Helper()
	c.send(fmt.Sprintf("%s {%d}", command, len(message)))
	if line := c.line(""); !strings.HasPrefix(line, "+") {
		return line
	}
	_, err := io.WriteString(c, message+"\r\n")
	gatewaytest.Must(c.t, err)
	for {
		if line := c.line(""); strings.HasPrefix(line, "a ") {
			return line
		}
	}
}

func TestListFolders(t *testing.T) {
	c := newFixture(t).serve(t).dial(t)
	for _, name := range []string{"Work/a/b", "INBOX/in", "&AOk-"} { // é
		c.command("CREATE " + name)
	}
	c.command("UNSUBSCRIBE Work/a")
	c.command("UNSUBSCRIBE Work")
	c.command("UNSUBSCRIBE Junk")
	for command, want := range map[string]string{
		`LIST "" ""`:                       `* LIST (\Noselect) "/" ""`,
		`LIST "" %`:                        `* LIST (\HasChildren) "/" INBOX|* LIST (\HasNoChildren \Archive) "/" "Archive"|* LIST (\HasNoChildren \Drafts) "/" "Drafts"|* LIST (\HasNoChildren \Junk) "/" "Junk"|* LIST (\HasNoChildren \Sent) "/" "Sent"|* LIST (\HasNoChildren \Trash) "/" "Trash"|* LIST (\HasChildren) "/" "Work"|* LIST (\HasNoChildren) "/" "&AOk-"`,
		`LIST "Work" *`:                    `* LIST (\HasChildren) "/" "Work/a"|* LIST (\HasNoChildren) "/" "Work/a/b"`,
		`LIST "" inbox*`:                   `* LIST (\HasChildren) "/" INBOX|* LIST (\HasNoChildren) "/" "INBOX/in"`,
		`LIST "" no`:                       ``,
		`LSUB "" Work*`:                    `* LSUB (\HasNoChildren \Subscribed) "/" "Work/a/b"`,
		`LIST (SPECIAL-USE) "" "(*)"`:      ``,
		`LIST (SPECIAL-USE) "" (S* Work*)`: `* LIST (\HasNoChildren \Sent) "/" "Sent"`,
		`LIST (SUBSCRIBED) "" J*`:          ``,
		`LIST (SUBSCRIBED RECURSIVEMATCH) "" (Work Junk)`:                  `* LIST (\HasChildren) "/" "Work" (CHILDINFO ("SUBSCRIBED"))`,
		`LIST "" (Sent) RETURN (STATUS (MESSAGES APPENDLIMIT) SUBSCRIBED)`: `* LIST (\HasNoChildren \Sent \Subscribed) "/" "Sent"|* STATUS "Sent" (MESSAGES 0 APPENDLIMIT 1048576)`,
	} {
		if got := strings.ReplaceAll(c.command(command), "\n", "|"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", command, got, want)
		}
	}
	c.refused(`LIST "" (`+strings.Repeat("a ", maxPatterns)+`b)`, "NO [LIMIT]")
	c.refused(`LIST "" `+strings.Repeat("*a", maxPatternBytes), "NO [LIMIT]")
}

func TestFolderCommandsRefused(t *testing.T) {
	c := newFixture(t).serve(t).dial(t)
	c.command("CREATE a/b/")
	for command, want := range map[string]string{
		"CREATE a": "NO [ALREADYEXISTS]", "CREATE inbox": "NO [ALREADYEXISTS]", "CREATE Sent": "NO [ALREADYEXISTS]", `CREATE ""`: "NO [CANNOT]", "CREATE a//b": "NO [CANNOT]",
		"CREATE x (USE (\\Sent))": "NO [USEATTR]", "DELETE a": "NO [HASCHILDREN]", "DELETE INBOX": "NO [CANNOT]", "DELETE Trash": "NO [CANNOT]", "DELETE no": "NO [NONEXISTENT]",
		"RENAME a a/b/c": "NO [CANNOT]", "RENAME INBOX old": "NO [CANNOT]", "RENAME a Sent": "NO [ALREADYEXISTS]", "RENAME no yes": "NO [NONEXISTENT]",
		"SUBSCRIBE no": "NO [NONEXISTENT]", "UNSUBSCRIBE INBOX": "NO [CANNOT]", "STATUS no (MESSAGES)": "NO [NONEXISTENT]", "COPY 1 no": "NO [TRYCREATE]", "MOVE 1 no": "NO [TRYCREATE]",
		`CREATE "a` + "\x01" + `b"`: "NO", "CREATE &AAE-": "NO", `CREATE "x%"`: "NO [CANNOT]",
		"CREATE " + strings.Repeat("x", 256): "NO [CANNOT]", "CREATE " + strings.Repeat("x/", 10) + "x": "NO [CANNOT]", "CREATE &!!!-": "",
	} {
		c.refused(command, want)
	}
	if got := c.command(`LIST "" *`); strings.Count(got, "\n") != 7 {
		t.Errorf("there are other folders now: %s", got)
	}
}

// 10,000 folders are not made, and the session goes on.
func TestManyFolders(t *testing.T) {
	c := newFixture(t).serve(t).dial(t)
	made := 0
	for i := range 10_000 {
		c.send(fmt.Sprintf("CREATE f%d", i))
		line := c.line("a ")
		if strings.HasPrefix(line, "a OK") {
			made++
		} else if !strings.HasPrefix(line, "a NO [LIMIT]") {
			t.Fatal(line)
		}
	}
	if made != mailbox.MaxFolders-5 || strings.Count(c.command(`LIST "" *`), "LIST") != mailbox.MaxFolders+1 {
		t.Errorf("%d folders were made", made)
	}
}
