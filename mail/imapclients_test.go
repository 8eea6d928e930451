package mail

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

// tool runs a mail program, which must succeed, and returns its output.
func tool(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// folder returns the texts of a folder's messages, with their flags by text.
func (f *fixture) folder(t *testing.T, vm gateway.Identity, name string) (all []string, flags map[string]mailbox.Flags) {
	t.Helper()
	folders, err := f.store.Folders(vm.ID)
	gatewaytest.Must(t, err)
	box, err := folders.Open(name)
	gatewaytest.Must(t, err)
	flags = map[string]mailbox.Flags{}
	for _, e := range box.Snapshot().Entries.All() {
		c, err := box.Open(e.UID)
		gatewaytest.Must(t, err)
		text := make([]byte, c.Size())
		_, err = c.ReadAt(text, 0)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, c.Close())
		_, body, _ := strings.Cut(string(text), "\r\n\r\n")
		all, flags[body] = append(all, body), e.Flags
	}
	return all, flags
}

// mbsync works both ways, by TLS and with a password: folders that are new on either side, messages, flags, and
// removals.
func TestMbsyncBothWays(t *testing.T) {
	t.Parallel()
	o := startOutside(t)
	vm := o.add(t, "blog")
	o.sendRaw(t, vm, "Subject: in\r\n\r\nfrom outside\r\n")
	_, port, _ := net.SplitHostPort(o.addr)
	dir := t.TempDir()
	config := filepath.Join(dir, "rc")
	write(t, config, fmt.Appendf(nil, "IMAPStore far\nHost localhost\nPort %s\nUser blog\nPass %s\nSSLType IMAPS\nCertificateFile %s\n\n"+
		"MaildirStore near\nPath %s/mail/\nInbox %s/inbox\nSubFolders Verbatim\n\n"+
		"Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nRemove Both\nSync All\nExpunge Both\nSyncState %s/state/\n",
		port, o.password(t, vm, "mbsync"), o.root, dir, dir, dir))
	gatewaytest.Must(t, os.MkdirAll(filepath.Join(dir, "state"), 0o700))
	for _, sub := range []string{"cur", "new", "tmp"} {
		gatewaytest.Must(t, os.MkdirAll(filepath.Join(dir, "mail/Work/2026", sub), 0o700))
		gatewaytest.Must(t, os.MkdirAll(filepath.Join(dir, "mail/Work", sub), 0o700))
	}
	sync := func() { tool(t, nil, "mbsync", "-c", config, "-a") }
	write(t, filepath.Join(dir, "mail/Work/2026/cur/1.x.host:2,FS"), []byte("Subject: pushed\n\nfrom here\n"))
	sync()
	if got, flags := o.folder(t, vm, "Work/2026"); !slices.Equal(got, []string{"from here\r\n"}) || flags[got[0]]&mailbox.AllFlags != mailbox.Flagged|mailbox.Seen {
		t.Errorf("pushed: %q, %v", got, flags)
	}
	pulled := glob(t, dir+"/inbox/new/*")
	if len(pulled) != 1 || len(glob(t, dir+"/mail/Sent/cur")) != 1 {
		t.Fatalf("pulled: %v, %v", pulled, glob(t, dir+"/mail/*"))
	}
	base, _, _ := strings.Cut(filepath.Base(pulled[0]), ":")
	gatewaytest.Must(t, os.Rename(pulled[0], filepath.Join(dir, "inbox/cur", base+":2,RS")))
	folders, err := o.store.Folders(vm.ID)
	gatewaytest.Must(t, err)
	work, err := folders.Open("Work/2026")
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, work.Expunge([]uint32{1}))
	gatewaytest.Must(t, folders.Create("Far"))
	sync()
	if _, flags := o.folder(t, vm, "INBOX"); flags["from outside\r\n"]&mailbox.AllFlags != mailbox.Seen|mailbox.Answered {
		t.Errorf("flags: %v", flags)
	}
	if left := glob(t, dir+"/mail/Work/2026/cur/*"); len(left) != 0 || len(glob(t, dir+"/mail/Far/cur")) != 1 {
		t.Errorf("removed at the server: %v, %v", left, glob(t, dir+"/mail/*"))
	}
	gatewaytest.Must(t, os.Rename(filepath.Join(dir, "inbox/cur", base+":2,RS"), filepath.Join(dir, "inbox/cur", base+":2,RST")))
	sync()
	if got, _ := o.folder(t, vm, "INBOX"); len(got) != 0 {
		t.Errorf("removed here: %q", got)
	}
}

// Python's imaplib, mutt and curl read and store mail from outside.
func TestOtherIMAPClients(t *testing.T) {
	t.Parallel()
	o := startOutside(t)
	vm := o.add(t, "blog")
	o.sendRaw(t, vm, "Subject: one\r\nFrom: a@b.c\r\n\r\nfirst\r\n")
	o.sendRaw(t, vm, "Subject: two\r\nFrom: a@b.c\r\n\r\nsecond\r\n")
	_, port, _ := net.SplitHostPort(o.addr)
	root, password, dir := o.root, o.password(t, vm, "all"), t.TempDir()

	got := tool(t, nil, "python3", "-c", `import imaplib, ssl, sys
m = imaplib.IMAP4_SSL("localhost", int(sys.argv[1]), ssl_context=ssl.create_default_context(cafile=sys.argv[2]))
print(m.login("blog", sys.argv[3])[0], *(c in m.capability()[1][0].split() for c in (b"MOVE", b"SPECIAL-USE")))
print(m.create("Work/a")[0], m.subscribe("Work/a")[0], len(m.list()[1]), len(m.lsub()[1]))
print(m.append("Work/a", "(\\Flagged $Label2)", imaplib.Time2Internaldate(0), b"Subject: py\r\n\r\nby python\r\n")[0])
m.select("INBOX")
print(m.uid("COPY", "1", "Archive")[0], m.uid("MOVE", "2", "Trash")[0], m.search(None, "ALL")[1])
m.select("Work/a")
print(m.fetch("1", "(FLAGS)")[1], m.search(None, "KEYWORD", "$label2")[1])
print(m.status("Trash", "(MESSAGES UNSEEN SIZE)")[0], m.rename("Work", "Done")[0], m.delete("Done/a")[0], m.unselect()[0], m.logout()[0])
`, port, root, password)
	want := "OK True True\nOK OK 8 8\nOK\nOK OK [b'1']\n[b'1 (FLAGS (\\\\Flagged $Label2))'] [b'1']\nOK OK OK OK BYE\n"
	if got != want {
		t.Errorf("imaplib:\n%s\nwant\n%s", got, want)
	}
	if all, _ := o.folder(t, vm, "Trash"); !slices.Equal(all, []string{"second\r\n"}) {
		t.Errorf("Trash has %q", all)
	}

	netrc, message := filepath.Join(dir, "netrc"), filepath.Join(dir, "message")
	write(t, netrc, fmt.Appendf(nil, "machine localhost login blog password %s\n", password))
	write(t, message, []byte("Subject: curl\r\n\r\nby curl\r\n"))
	curl := func(args ...string) string {
		return tool(t, nil, "curl", append([]string{"-sS", "--cacert", root, "--netrc-file", netrc}, args...)...)
	}
	url := "imaps://localhost:" + port
	curl("-T", message, url+"/Drafts")
	if got := curl(url + "/Drafts;UID=1"); got != "Subject: curl\r\n\r\nby curl\r\n" {
		t.Errorf("curl: %q", got)
	}
	if got := curl(url, "-X", "LIST \"\" Dra*"); !strings.Contains(got, `\Drafts`) {
		t.Errorf("curl: %q", got)
	}

	rc := filepath.Join(dir, "muttrc")
	write(t, rc, fmt.Appendf(nil, "set ssl_force_tls=yes certificate_file=%s ssl_ca_certificates_file=%s ssl_usesystemcerts=no\nset imap_user=blog imap_pass=%s\n"+
		"set folder=imaps://localhost:%s/ spoolfile=+INBOX quit=yes delete=yes sort=threads wait_key=no confirmappend=no confirmcreate=no move=no\n"+
		"set header_cache=\"\" tmpdir=%s\n", root, root, password, port, dir))
	tool(t, []string{"TERM=vt100", "HOME=" + dir}, "script", "-qec",
		"mutt -n -F "+rc+" -e 'push \"<save-message>=FromMutt<enter><sync-mailbox><quit>\"'", "/dev/null")
	if all, _ := o.folder(t, vm, "FromMutt"); !slices.Equal(all, []string{"first\r\n"}) {
		t.Errorf("mutt saved %q", all)
	}
	if all, _ := o.folder(t, vm, "INBOX"); len(all) != 0 {
		t.Errorf("mutt left %q", all)
	}
}

// The commands that Thunderbird opens an account and a folder with are answered with OK.
func TestThunderbirdOpens(t *testing.T) {
	t.Parallel()
	o := startOutside(t)
	vm := o.add(t, "blog")
	o.sendRaw(t, vm, multipart)
	c := o.dial(t)
	if line := o.try(c, "PLAIN, initial response", "blog", o.password(t, vm, "tb")); !strings.HasPrefix(line, "a OK [CAPABILITY ") {
		t.Fatal(line)
	}
	for i, command := range []string{
		`capability`, `enable UTF8=ACCEPT`, `namespace`, `list (subscribed) "" "*" return (special-use)`, `list (subscribed) "" "INBOX" return (special-use)`,
		`list "" "INBOX"`, `lsub "" "*"`, `select "INBOX"`, `UID fetch 1:* (FLAGS)`,
		`UID fetch 1 (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)])`,
		`UID fetch 1 (UID RFC822.SIZE BODY.PEEK[])`, `UID fetch 1 (UID BODYSTRUCTURE)`, `UID store 1 +FLAGS (\Seen)`, `UID store 1 +FLAGS ($label1)`,
		`STATUS "Trash" (UIDNEXT MESSAGES UNSEEN RECENT)`, `create "Templates"`, `subscribe "Templates"`, `list "" "Templates"`,
		`UID move 1 "Trash"`, `noop`, `close`, `select "Trash"`, `UID SEARCH UNDELETED`, `UID store 1 +FLAGS (\Deleted)`, `expunge`, `logout`,
	} {
		c.send(fmt.Sprintf("%d %s\r\n", i, command))
		for {
			line := c.line()
			if tagged, is := strings.CutPrefix(line, fmt.Sprint(i, " ")); is {
				if !strings.HasPrefix(tagged, "OK") {
					t.Errorf("%s: %s", command, tagged)
				}
				break
			}
		}
	}
}
