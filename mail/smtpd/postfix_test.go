package smtpd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"

	"lodge/gateway/gatewaytest"
)

// mainCF makes Postfix take what a shelf takes, with no delays and no limits on errors, and throw it
// away.
const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = %[1]s/log
myhostname = lodge.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = blog.lodge.test
virtual_mailbox_maps = static:all
virtual_transport = discard:
smtpd_recipient_restrictions = reject_unauth_destination
smtpd_forbid_bare_newline = reject
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_helo_required = yes
message_size_limit = 1048576
biff = no
`

const masterCF = `127.0.0.1:%[2]d inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// postfix runs Debian's Postfix on loopback with a configuration and a queue of its own.
func postfix(t *testing.T) theirs {
	t.Helper()
	const program = "/usr/sbin/postfix"
	if _, err := os.Stat(program); err != nil {
		t.Fatal("postfix is not installed: packaging/deps conformance")
	}
	dir, err := os.MkdirTemp("/var/tmp", "lodge-postfix-*") //nolint:usetesting // Postfix's users pass through
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	gatewaytest.Must(t, os.Chmod(dir, 0o755)) //nolint:gosec // as above
	for _, name := range []string{"spool", "data", "conf"} {
		gatewaytest.Must(t, os.Mkdir(filepath.Join(dir, name), 0o755)) //nolint:gosec // as above
	}
	who, err := user.Lookup("postfix")
	gatewaytest.Must(t, err)
	uid, err := strconv.Atoi(who.Uid)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.Chown(filepath.Join(dir, "data"), uid, 0))
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // to find a free port
	gatewaytest.Must(t, err)
	addr := l.Addr().(*net.TCPAddr)
	gatewaytest.Must(t, l.Close())
	for name, text := range map[string]string{"main.cf": fmt.Sprintf(mainCF, dir), "master.cf": fmt.Sprintf(masterCF, dir, addr.Port)} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "conf", name), []byte(text), 0o644)) //nolint:gosec // as above
	}
	conf := filepath.Join(dir, "conf")
	if out, err := exec.CommandContext(t.Context(), program, "-c", conf, "start").CombinedOutput(); err != nil {
		t.Fatalf("postfix start: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command(program, "-c", conf, "stop").Run() }) //nolint:noctx // the test's context has ended
	gatewaytest.Eventually(t, func() error {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr.String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	return theirs{name: "postfix", addr: addr.String(), known: postfixDifferences}
}

var postfixDifferences = []difference{
	{"(bdat|data).*", "554 5.6.0", "250", "takes bare CR, and bare LF in chunks"},
	{"bdat 0.*", "", "551 5.7.1 Null", "refuses an empty chunk"},
	{"(mail|rcpt).*", "250", "503 5.5.1 Error: .* after BDAT", "wants RSET after a refused BDAT"},
	{"mail.*", "250", "552 5.3.4", "remembers the size of a refused MAIL"},
	{"help", "214", "500", "has no HELP"},
	{"vrfy.*", "252", "554", "verifies by the rules for recipients"},
	{"rset x", "250", "501", "refuses an argument of RSET"},
}
