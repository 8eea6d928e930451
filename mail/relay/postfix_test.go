package relay

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/mail/verdict"
)

var withPostfix = flag.Bool("postfix", false, "send mail to Debian's Postfix too; it must be installed")

// theirs is a configuration that receives mail for far.example into Maildirs, with TLS. It has one user.
const theirs = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = %[1]s/log
myhostname = mx.far.example
mydestination =
inet_interfaces = 12.0.0.2
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = far.example
virtual_mailbox_base = %[1]s/data
virtual_mailbox_maps = inline:{ x@far.example=x/ }
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[3]d
smtpd_recipient_restrictions = reject_unauth_destination
smtpd_helo_restrictions = reject_non_fqdn_helo_hostname
smtpd_helo_required = yes
smtpd_tls_security_level = may
smtpd_tls_chain_files = %[1]s/conf/chain.pem
smtpd_tls_received_header = yes
message_size_limit = 10485760
biff = no
`

const masterCF = `12.0.0.2:25 inet n - n - - smtpd
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
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// run runs a program of the machine.
func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// wire makes a network namespace mx with the address 12.0.0.2, and the address 12.0.0.1 here: those are on
// the internet, so the queue runs with the settings that it has there.
func wire(t *testing.T) {
	t.Helper()
	for _, line := range []string{
		"netns add mx", "link add mx0 type veth peer name mx1 netns mx", "addr add 12.0.0.1/24 dev mx0", "link set mx0 up",
		"-n mx addr add 12.0.0.2/24 dev mx1", "-n mx link set mx1 up", "-n mx link set lo up",
	} {
		run(t, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "mx").Run() }) //nolint:noctx // the test's context has ended
}

// postfix runs Debian's Postfix in the namespace mx, and returns the directory of the mail it gets.
func postfix(t *testing.T) (inbox string) {
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
	gid, err := strconv.Atoi(who.Gid)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.Chown(filepath.Join(dir, "data"), uid, gid))
	conf := filepath.Join(dir, "conf")
	for name, text := range map[string]string{"main.cf": fmt.Sprintf(theirs, dir, uid, gid), "master.cf": masterCF, "chain.pem": chain(t)} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(conf, name), []byte(text), 0o644)) //nolint:gosec // as above
	}
	run(t, "ip", "netns", "exec", "mx", program, "-c", conf, "start")
	t.Cleanup(func() {
		if text, err := os.ReadFile(filepath.Join(dir, "log")); t.Failed() && err == nil {
			t.Logf("%s", text)
		}
		_ = exec.Command("ip", "netns", "exec", "mx", program, "-c", conf, "stop").Run() //nolint:noctx // the test's context has ended
	})
	return filepath.Join(dir, "data", "x", "new")
}

// Postfix, at an address of the internet and at port 25, gets mail over TLS. What it has passes SPF, DKIM
// and DMARC by the records of the host, and what it refuses is reported.
func TestPostfix(t *testing.T) {
	if !*withPostfix {
		t.Skip("runs with -postfix")
	}
	wire(t)
	inbox := postfix(t)
	r := start(t, "25", func(c *Config) { c.inside = false }, "far.example. MX 10 mx.far.example.", "mx.far.example. A 12.0.0.2")
	for i := range 20 {
		r.send(t, fmt.Sprint("number ", i), "x@far.example", fmt.Sprintf("nobody%d@far.example", i))
	}
	r.waitEmpty(t)
	for _, report := range r.reports(t, 20) {
		if !strings.Contains(report, "Diagnostic-Code: smtp; 550 5.1.1 <nobody") || !strings.Contains(report, "Remote-MTA: dns; mx.far.example\r\n") {
			t.Errorf("%s", report)
		}
	}
	gatewaytest.WaitFor(t, "20 messages", func() bool { all, _ := os.ReadDir(inbox); return len(all) == 20 })
	all, err := os.ReadDir(inbox)
	gatewaytest.Must(t, err)
	records := []string{us + ". A 12.0.0.1", "*." + us + ". A 12.0.0.1"}
	for _, rec := range r.Records() {
		records = append(records, rec.Name+" "+rec.Type+" "+rec.Value)
	}
	r.zone.Set(t, records...)
	for _, entry := range all {
		stored, err := os.ReadFile(filepath.Join(inbox, entry.Name()))
		gatewaytest.Must(t, err)
		message := strings.ReplaceAll(string(stored), "\n", "\r\n") // Postfix stores lines as unix has them
		if !strings.Contains(message, "using TLSv1.3") || !strings.Contains(message, "from "+us+" (unknown [12.0.0.1])") {
			t.Errorf("%s", message)
		}
		v := judge(t, r.zone.Addr, message, "12.0.0.1")
		if v.SPF != verdict.Pass || len(v.DKIM) != 2 || v.DKIM[0].Result != verdict.Pass || v.DKIM[1].Result != verdict.Pass || v.DMARC != verdict.Pass {
			t.Errorf("%+v\n%s", v, message)
		}
	}
}
