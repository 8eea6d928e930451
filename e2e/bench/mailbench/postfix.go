package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// mainCF delivers mail for any VM's name into a Maildir of that name. It asks no DNS, and slows no sender.
const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = %[1]s/log
myhostname = bench.localhost
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = static:all
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = inline:{%[3]s }
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[2]d
smtpd_recipient_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
virtual_mailbox_limit = 0
message_size_limit = 52428800
in_flow_delay = 0
biff = no
`

const masterCF = `127.0.0.1:%[2]d inet n - n - - smtpd
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

const postfixProgram = "/usr/sbin/postfix"

// postfix is a running Postfix.
type postfix struct{ dir, smtp string }

func (p *postfix) conf() string { return filepath.Join(p.dir, "conf") }

// startPostfix runs Debian's Postfix with a configuration, a queue and Maildirs of its own.
func (b *bench) startPostfix(ctx context.Context, names []string) (*postfix, error) {
	if _, err := os.Stat(postfixProgram); err != nil {
		return nil, errors.New("postfix is missing: packaging/deps mailbench")
	}
	p := &postfix{dir: filepath.Join(b.dir, "postfix")}
	for _, dir := range []string{p.dir, p.conf(), filepath.Join(p.dir, "spool"), filepath.Join(p.dir, "data"), filepath.Join(p.dir, "mail")} {
		if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // Postfix's users pass through
			return nil, err
		}
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p.smtp = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	err = errors.Join(os.Chown(filepath.Join(p.dir, "data"), uid, 0), os.Chown(filepath.Join(p.dir, "mail"), mailUID, mailUID))
	for name, text := range map[string]string{"main.cf": fmt.Sprintf(mainCF, p.dir, mailUID, boxes(names)), "master.cf": fmt.Sprintf(masterCF, p.dir, port)} {
		err = errors.Join(err, os.WriteFile(filepath.Join(p.conf(), name), []byte(text), 0o644)) //nolint:gosec // as above
	}
	if err != nil {
		return nil, err
	}
	if err := command(ctx, postfixProgram, "-c", p.conf(), "start"); err != nil {
		return nil, err
	}
	return p, listening(ctx, p.smtp)
}

// boxes are the Maildirs of VMs, as a table of Postfix.
func boxes(names []string) string {
	var all []string
	for _, name := range names {
		all = append(all, fmt.Sprintf(" x@%[1]s.%[2]s=%[1]s/", name, domain))
	}
	return strings.Join(all, ",")
}

func (p *postfix) stop() {
	_ = command(context.Background(), postfixProgram, "-c", p.conf(), "stop") // it ends with the namespace otherwise
}

// pid is that of the process that starts all others.
func (p *postfix) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "spool/pid/master.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// drained waits until its queue is empty: until all mail is in the Maildirs.
func (p *postfix) drained(ctx context.Context) error {
	return until(ctx, "Postfix delivers", func() bool {
		for _, queue := range []string{"incoming", "active", "deferred"} {
			files := 0
			_ = filepath.WalkDir(filepath.Join(p.dir, "spool", queue), func(_ string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() { // files go while this walks
					files++
				}
				return nil
			})
			if files > 0 {
				return false
			}
		}
		return true
	})
}

// delivered counts the files in the Maildirs.
func (p *postfix) delivered() (int, error) {
	all, err := filepath.Glob(filepath.Join(p.dir, "mail/*/new/*"))
	return len(all), err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it takes no time
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// listening waits until a server accepts connections.
func listening(ctx context.Context, addr string) error {
	return until(ctx, addr+" listens", func() bool {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close() // only the connect matters
		}
		return err == nil
	})
}

// until waits for a condition, for two minutes at most.
func until(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
	}
	return nil
}
