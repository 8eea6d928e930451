package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/e2e/harness"
	"lodge/gateway"
)

// send sends mail with swaks. It must be accepted.
func (s *suite) send(t *testing.T, from, to, body string, more ...string) {
	t.Helper()
	r := s.trySend(t, from, to, append([]string{"--body", body, "--header", "Subject: " + body}, more...)...)
	if r.Code != 0 {
		t.Fatalf("mail to %s was not accepted: %s", to, r.Text())
	}
}

func (s *suite) trySend(t *testing.T, from, to string, more ...string) harness.Result {
	t.Helper()
	args := []string{"--server", "127.0.0.1", "--from", from, "--to", to, "--helo", "mx.example.org", "--timeout", "60"}
	return s.h.Run(t, nil, "swaks", append(args, more...)...)
}

// find waits until a VM's mailbox on the host has a message with a subject, and returns the newest.
func (s *suite) find(t *testing.T, vm *harness.VM, subject string) gateway.Message {
	t.Helper()
	var found gateway.Message
	harness.Eventually(t, "mail "+subject+" for "+vm.Name, 30*time.Second, func() error {
		for _, m := range harness.JSON[[]gateway.Message](t, s.h, "mail", vm.Name) {
			if m.Subject == subject {
				found = m
				return nil
			}
		}
		return errors.New("it is not in the list")
	})
	return found
}

// delivered waits until the message is in the guest.
func (s *suite) delivered(t *testing.T, vm *harness.VM, subject string, limit time.Duration) gateway.Message {
	t.Helper()
	var m gateway.Message
	harness.Eventually(t, "delivery of "+subject+" to "+vm.Name, limit, func() error {
		if m = s.find(t, vm, subject); !m.Delivered {
			return errors.New("it waits")
		}
		return nil
	})
	return m
}

// mail: a message from swaks is in the guest's Maildir, with the same bytes as on the host. Mail for
// the domain itself is the operator's. Bad recipients are refused.
func (s *suite) mail(t *testing.T) {
	dir := t.TempDir()
	body := "From: person@example.org\r\nTo: anything@alpha.lodge.localhost\r\nSubject: every byte\r\n\r\n" +
		".\r\n..leading dots\r\n\tTabs, umlauts äöü, a NUL-free \x01 \x7f \xff byte\r\nFrom the start of a line\r\n\r\n" +
		strings.Repeat("0123456789abcdef", 50) + "\r\n"
	file := filepath.Join(dir, "message")
	if err := os.WriteFile(file, []byte(strings.TrimSuffix(body, "\r\n")), 0o600); err != nil { // swaks adds the last line end
		t.Fatal(err)
	}
	if r := s.trySend(t, "person@example.org", "anything@alpha."+s.h.Domain, "--data", "@"+file); r.Code != 0 {
		t.Fatalf("swaks: %s", r.Text())
	}
	m := s.delivered(t, s.alpha, "every byte", time.Minute)
	host := s.h.Lodge(t, "mail", "alpha", m.QueueID)
	guest := harness.Result{Stdout: s.alpha.Run(t, "base64 -w0 ~/Maildir/new/"+m.QueueID+"*")}
	if diff := cmp.Diff(host, decode(t, guest.Stdout)); diff != "" {
		t.Errorf("the guest's copy differs from the host's (-host +guest):\n%s", diff)
	}
	head, got, found := strings.Cut(host, "From: person@example.org\r\n")
	if want := strings.TrimPrefix(body, "From: person@example.org\r\n"); !found || got != want {
		t.Errorf("what was sent has changed:\n%s", cmp.Diff(want, got))
	}
	contains(t, "the trace headers", head, "Return-Path: <person@example.org>", "Delivered-To: anything@alpha."+s.h.Domain, "Received: ")
	if left := s.alpha.Run(t, "ls ~/Maildir/tmp | wc -l; stat -c '%U %a' ~/Maildir ~/Maildir/new/"+m.QueueID+"*"); !strings.HasPrefix(left, "0\nlodge 700\nlodge 600") {
		t.Errorf("the Maildir has files left in tmp, or other owners and modes than it should: %s", left)
	}
	if r := s.trySend(t, "person@example.org", "postmaster@"+s.h.Domain, "--tls", "--header", "Subject: for the operator"); r.Code != 0 {
		t.Errorf("swaks to the operator, encrypted: %s", r.Text())
	}
	contains(t, "the operator's mail", s.h.Lodge(t, "mail", "postmaster"), "for the operator")
	s.refusedMail(t, dir)
}

// refusedMail is refused in the SMTP session, so that no bounce is ever made.
func (s *suite) refusedMail(t *testing.T, dir string) {
	t.Helper()
	for to, code := range map[string]string{
		"x@nosuch." + s.h.Domain: "550", "x@" + s.h.Domain: "550", "x@example.org": "550", "x@alpha.example.org": "550",
	} {
		r := s.trySend(t, "person@example.org", to)
		if r.Code == 0 || !strings.Contains(r.Text(), "<** "+code) {
			t.Errorf("mail to %s: want %s at RCPT, got:\n%s", to, code, r.Text())
		}
	}
	big := filepath.Join(dir, "big")
	line := strings.Repeat("x", 1022) + "\r\n"
	if err := os.WriteFile(big, []byte("Subject: too big\r\n\r\n"+strings.Repeat(line, 51<<10)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.trySend(t, "person@example.org", "x@alpha."+s.h.Domain, "--data", "@"+big, "--suppress-data")
	if r.Code == 0 || !strings.Contains(r.Text(), "<** 552") {
		t.Errorf("51 MiB: want 552, got:\n%s", r.Text())
	}
	for _, m := range harness.JSON[[]gateway.Message](t, s.h, "mail", "alpha") {
		if m.Subject == "too big" {
			t.Errorf("the refused mail was stored: %+v", m)
		}
	}
}

// sending: unconfigured programs in a VM send mail, to the other VM and to their own; strangers get none.
func (s *suite) sending(t *testing.T) {
	t.Helper()
	to := "x@beta." + s.h.Domain
	s.alpha.Run(t, `printf 'Subject: by sendmail\n\nx\n' | /usr/sbin/sendmail root "`+to+`"
		python3 - <<'END'
import smtplib
with smtplib.SMTP("169.254.169.254", 587) as s:
    s.sendmail("root@localhost", ["`+to+`", "root@localhost"], "Subject: by smtplib\r\n\r\nx")
END
		curl -sS --fail -H 'Lodge-Request: 1' --json '{"to": "`+to+`", "subject": "by HTTP", "text": "x"}' http://169.254.169.254/lodge/v1/mail`)
	for _, subject := range []string{"by sendmail", "by smtplib", "by HTTP"} {
		m := s.find(t, s.beta, subject)
		contains(t, subject, s.h.Lodge(t, "mail", "beta", m.QueueID), "\nX-Lodge-Vm: alpha\r")
	}
	s.find(t, s.alpha, "by sendmail")
	s.find(t, s.alpha, "by smtplib")
	r := s.alpha.Try(t, `curl -s -H 'Lodge-Request: 1' --json '{"to": "eve@example.org", "subject": "x", "text": "x"}' http://169.254.169.254/lodge/v1/mail`)
	contains(t, "mail to a stranger", r.Text(), "alpha may write to its people")
}

// imap: inside the VM IMAP needs no password. It has the same mail, keeps flags, and IDLE reports
// new mail.
func (s *suite) imap(t *testing.T) {
	s.send(t, "person@example.org", "imap@beta."+s.h.Domain, "first for beta")
	want := s.h.Lodge(t, "mail", "beta", s.find(t, s.beta, "first for beta").QueueID)
	got := s.beta.Run(t, `exec 3<>/dev/tcp/169.254.169.254/143; head -n 1 <&3 | cut -c 1-9; exec 3>&-
		python3 - <<'END'
import base64, imaplib
m = imaplib.IMAP4("169.254.169.254", timeout=20)
m.select("INBOX")
numbers = m.search(None, "SUBJECT", '"first for beta"')[1][0].split()
print(len(numbers))
m.store(numbers[0], "+FLAGS", r"(\Flagged)")
print(base64.b64encode(m.fetch(numbers[0], "(BODY.PEEK[])")[1][0][1]).decode())
m.logout()
m = imaplib.IMAP4("169.254.169.254", timeout=20)
m.select("INBOX")
print(m.fetch(numbers[0], "(FLAGS)")[1][0].decode())
END`)
	lines := strings.Split(got, "\n")
	if len(lines) != 4 || lines[0] != "* PREAUTH" || lines[1] != "1" || !strings.Contains(lines[3], `\Flagged`) {
		t.Fatalf("over IMAP:\n%s", got)
	}
	if diff := cmp.Diff(want, decode(t, lines[2])); diff != "" {
		t.Errorf("IMAP's copy differs from the host's (-host +IMAP):\n%s", diff)
	}
	s.idle(t)
}

func (s *suite) idle(t *testing.T) {
	t.Helper()
	s.beta.Put(t, "/home/lodge/idle.py", strings.NewReader(`
import socket
c = socket.create_connection(("169.254.169.254", 143), 120)
f = c.makefile("rw", newline="\r\n")
def send(line):
    f.write(line + "\n"); f.flush()
print(f.readline().split()[1], flush=True)
send("a SELECT INBOX")
while not f.readline().startswith("a "): pass
send("b IDLE")
print(f.readline()[0], flush=True)
while "EXISTS" not in (line := f.readline()): pass
print("new mail reported", flush=True)
`), "644")
	s.beta.Run(t, "rm -f ~/idle.out; systemd-run --user --quiet --unit=idle sh -c 'python3 ~/idle.py >~/idle.out 2>&1' || (setsid python3 ~/idle.py >~/idle.out 2>&1 &)")
	wait := func(text string) {
		harness.Eventually(t, "IDLE reports "+text, time.Minute, func() error {
			if out := s.beta.Run(t, "cat ~/idle.out || true"); !strings.Contains(out, text) {
				return fmt.Errorf("output %q", out)
			}
			return nil
		})
	}
	wait("PREAUTH\n+")
	s.send(t, "person@example.org", "imap@beta."+s.h.Domain, "second for beta")
	wait("new mail reported")
}

// brokenGuest: mail for a guest whose Maildir or sshd is broken waits, and does not delay that of
// others.
func (s *suite) brokenGuest(t *testing.T) {
	vm := s.fresh(t, "broken")
	t.Run("maildir", func(t *testing.T) {
		vm.Run(t, "rm -rf ~/Maildir.away; if [ -e ~/Maildir ]; then mv ~/Maildir ~/Maildir.away; fi; echo in the way >~/Maildir")
		s.waits(t, vm, "while the Maildir is broken")
		vm.Run(t, "rm ~/Maildir; if [ -e ~/Maildir.away ]; then mv ~/Maildir.away ~/Maildir; fi")
		s.delivered(t, vm, "while the Maildir is broken", 3*time.Minute)
	})
	t.Run("sshd", func(t *testing.T) {
		// The guest repairs itself, since no login works meanwhile. The script that breaks it ends
		// this session, too.
		vm.Try(t, `cat >/tmp/break <<'END'
systemctl stop ssh.socket
systemctl stop ssh.service
for p in /proc/[0-9]*; do case $(cat $p/comm) in sshd*) kill -9 ${p#/proc/};; esac; done
echo sshd and its sessions are gone >/dev/ttyS0
systemd-run --quiet --unit=mend --on-active=60 --timer-property=AccuracySec=1s systemctl start ssh.service
END
			sudo systemd-run --quiet --unit=break sh /tmp/break`)
		harness.Eventually(t, "sshd is gone", 3*time.Minute, func() error {
			if log := s.h.Lodge(t, "logs", vm.Name); !strings.Contains(log, "sshd and its sessions are gone") {
				return errors.New("the console log does not show it")
			}
			return nil
		})
		s.waits(t, vm, "while sshd is broken")
		s.delivered(t, vm, "while sshd is broken", 5*time.Minute) // tries again after 1, 2, 4, … seconds
	})
}

// waits sends the same message to alpha, which gets it, and to a broken VM, whose copy is kept.
func (s *suite) waits(t *testing.T, broken *harness.VM, subject string) {
	t.Helper()
	s.send(t, "person@example.org", "x@"+broken.Name+"."+s.h.Domain, subject)
	s.send(t, "person@example.org", "x@alpha."+s.h.Domain, subject)
	s.delivered(t, s.alpha, subject, time.Minute)
	if m := s.find(t, broken, subject); m.Delivered {
		t.Errorf("%q is delivered to a guest that is broken", subject)
	}
}
