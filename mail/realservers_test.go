package mail

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

var withPostfix = flag.Bool("postfix", false, "deliver to Debian's Postfix and Dovecot too; they must be installed")

// dovecotConf delivers by LMTP into Maildirs below a directory, for two users; full has no room.
const dovecotConf = `protocols = lmtp
base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/log
ssl = no
first_valid_uid = 1
mail_location = maildir:%[1]s/mail/%%n
mail_plugins = quota
auth_username_format = %%Ln
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = %[2]s
  }
}
plugin {
  quota = maildir:User quota
}
`

// postfixConf delivers what port 25 gets into Maildirs below a directory, for the same users.
const postfixConf = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = %[1]s/log
myhostname = hello.lodge.localhost
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = hello.lodge.localhost
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = inline:{ x@hello.lodge.localhost=x/, full@hello.lodge.localhost=full/ }
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[3]d
smtpd_recipient_restrictions = check_recipient_access inline:{ { full@hello.lodge.localhost = 452 4.2.2 Mailbox full } }, reject_unauth_destination
message_size_limit = 10485760
local_header_rewrite_clients =
biff = no
`

const postfixMaster = `%[1]s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// guestServer is a server of Debian: its directory, its port, and its reply for a mailbox without room.
type guestServer struct {
	dir, port, full string
}

func (s guestServer) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	gatewaytest.Must(t, err)
	return string(text)
}

// newGuestServer makes the directory, with directories below it. The server's users pass through.
func newGuestServer(t *testing.T, program string, below ...string) guestServer {
	t.Helper()
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%s is not installed: packaging/deps conformance", program)
	}
	dir, err := os.MkdirTemp("/var/tmp", "lodge-guest-*") //nolint:usetesting // as above
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	gatewaytest.Must(t, os.Chmod(dir, 0o755)) //nolint:gosec // as above
	for _, name := range below {
		gatewaytest.Must(t, os.Mkdir(filepath.Join(dir, name), 0o755)) //nolint:gosec // as above
	}
	l := listen(t)
	_, port, err := net.SplitHostPort(l.Addr().String())
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, l.Close())
	t.Cleanup(func() {
		if text, err := os.ReadFile(filepath.Join(dir, "log")); t.Failed() && err == nil {
			t.Logf("%s", text)
		}
	})
	return guestServer{dir: dir, port: port}
}

func (s guestServer) write(t *testing.T, name, text string) {
	t.Helper()
	gatewaytest.Must(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644)) //nolint:gosec // as above
}

// give makes a directory that of a user.
func (s guestServer) give(t *testing.T, name, to string) (uid, gid int) {
	t.Helper()
	who, err := user.Lookup(to)
	gatewaytest.Must(t, err)
	_, err = fmt.Sscan(who.Uid+" "+who.Gid, &uid, &gid)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.Chown(filepath.Join(s.dir, name), uid, gid))
	return uid, gid
}

// await waits for the port to be open.
func (s guestServer) await(t *testing.T) guestServer {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+s.port)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return s
}

func startDovecot(t *testing.T) guestServer {
	t.Helper()
	const program = "/usr/sbin/dovecot"
	s := newGuestServer(t, program, "run", "mail")
	uid, gid := s.give(t, "mail", "mail")
	s.write(t, "users", fmt.Sprintf("x:{PLAIN}x:%[1]d:%[2]d::%[3]s::\nfull:{PLAIN}x:%[1]d:%[2]d::%[3]s::userdb_quota_rule=*:bytes=10\n", uid, gid, s.dir))
	s.write(t, "conf", fmt.Sprintf(dovecotConf, s.dir, s.port))
	server := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-F", "-c", filepath.Join(s.dir, "conf"))
	gatewaytest.Must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM) // Wait shows that it has ended
		_ = server.Wait()
	})
	s.full = "SMTP error 552: <full@hello.lodge.localhost> Quota exceeded"
	return s.await(t)
}

func startPostfix(t *testing.T) guestServer {
	t.Helper()
	const program = "/usr/sbin/postfix"
	s := newGuestServer(t, program, "spool", "data", "conf", "mail")
	s.give(t, "data", "postfix")
	uid, gid := s.give(t, "mail", "mail")
	s.write(t, "conf/main.cf", fmt.Sprintf(postfixConf, s.dir, uid, gid))
	s.write(t, "conf/master.cf", fmt.Sprintf(postfixMaster, s.port))
	control := func(verb string) ([]byte, error) {
		return exec.CommandContext(context.WithoutCancel(t.Context()), program, "-c", filepath.Join(s.dir, "conf"), verb).CombinedOutput()
	}
	out, err := control("start")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { _, _ = control("stop") })
	s.full = "SMTP error 452: <full@hello.lodge.localhost>: Recipient address rejected: Mailbox full"
	return s.await(t)
}

// inbox returns the messages of x, with CRLF line ends: Maildirs have lines as unix has them.
func (s guestServer) inbox(t *testing.T) (all []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "mail", "x", "new", "*"))
	gatewaytest.Must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		gatewaytest.Must(t, err)
		all = append(all, string(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))))
	}
	return all
}

// Dovecot by LMTP, and Postfix by SMTP, get every message once and unchanged, whatever is in it. A user that does
// not exist, one without room and a message that is too large stop nothing behind them, and have the server's words.
func TestRealServers(t *testing.T) {
	if !*withPostfix {
		t.Skip("runs with -postfix")
	}
	for setting, begin := range map[string]func(*testing.T) guestServer{"lmtp": startDovecot, "smtp": startPostfix} {
		t.Run(setting, func(t *testing.T) {
			server := begin(t)
			f, vm := withRoute(t, setting, func() string { return "127.0.0.1:" + server.port })
			bodies := []string{
				"plain", ".", "..\r\n.\r\n...", "from mbox:\r\nFrom x\r\n>From y", "umlaut h\xc3\xa9, latin h\xe9", strings.Repeat("x", 990),
				strings.Repeat("a line of text\r\n", 1<<18), "trailing space \t \r\n\r\n\r\n", "", strings.Repeat(strings.Repeat("long", 240)+"\r\n", 50),
			}
			unknown, full := f.deliverFor(t, vm, "nobody", "for nobody"), f.deliverFor(t, vm, "full", strings.Repeat("for the full one\r\n", 100))
			want := map[string]string{} // by queue id
			for range 3 {
				for _, body := range bodies {
					id := f.deliverFor(t, vm, "x", body)
					_, want[id], _ = strings.Cut(string(f.read(t, vm, id)), "Delivered-To: x@hello."+domain+"\r\n")
				}
			}
			for id := range want {
				f.awaitDelivery(t, vm, id)
			}
			gatewaytest.WaitFor(t, "all in the Maildir", func() bool { return len(server.inbox(t)) >= len(want) })
			checkInbox(t, server.inbox(t), want)
			for id, reason := range map[string]string{unknown: "SMTP error 550: <nobody@hello.", full: server.full} {
				gatewaytest.WaitFor(t, reason, func() bool { m := f.show(t, vm, id); return !m.Delivered && strings.Contains(m.Error, reason) })
			}
			if log := server.log(t); strings.Contains(log, "lost connection after RCPT") || strings.Contains(log, "Connection closed (state=MAIL FROM)") || strings.Contains(log, "Connection closed (state=READY)") {
				t.Error("a connection ended without QUIT")
			}
		})
	}
}

// checkInbox checks that each message is in a Maildir once, below what the server put on top of it.
func checkInbox(t *testing.T, all []string, want map[string]string) {
	t.Helper()
	if len(all) != len(want) {
		t.Errorf("%d messages, want %d", len(all), len(want))
	}
	for id, text := range want {
		n := 0
		for _, got := range all {
			if strings.HasSuffix(got, text) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is there %d times: %.2000q", id, n, text)
		}
	}
}

// deliverFor receives a message for a local part of a VM, and returns its queue id.
func (f *fixture) deliverFor(t *testing.T, vm gateway.Identity, local, body string) string {
	t.Helper()
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	c.ask("RCPT TO:<"+local+"@"+vm.Name+"."+domain+">", "250")
	c.ask("DATA", "354")
	lines := strings.Split(body, "\r\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = "." + line
		}
	}
	reply := c.ask("Subject: "+local+"\r\n\r\n"+strings.Join(lines, "\r\n")+"\r\n.", "250 2.0.0 OK: queued as ")
	return strings.Fields(strings.TrimPrefix(reply, "250 2.0.0 OK: queued as "))[0]
}
