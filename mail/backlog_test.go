package mail

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/deliver"
)

// A backlog gets into a guest once and whole, by several sftp-servers, or by one where the guest allows no more.
func TestBacklog(t *testing.T) {
	for sessions, servers := range map[int]int{1: 1, 10: 4} {
		t.Run(fmt.Sprintf("MaxSessions %d", sessions), func(t *testing.T) {
			g := newGuest(t)
			begun := filepath.Join(g.home, "begun") // each server leaves a line there
			g.configure(t, fmt.Sprintf("echo >>%s; exec /usr/lib/openssh/sftp-server", begun), fmt.Sprintf("MaxSessions %d", sessions))
			f, vm := withGuest(t, t.TempDir(), g)
			want := map[string]string{}
			for i := range 60 {
				id := f.deliverTo(t, vm, fmt.Sprint("number ", i))
				want[id] = string(f.read(t, vm, id))
			}
			g.up(t)
			f.started(t, vm)
			for id := range want {
				f.awaitDelivery(t, vm, id)
			}
			inbox := filepath.Join(g.home, "Maildir", "new")
			if n := len(files(t, inbox)); n != len(want) {
				t.Errorf("%d files, want %d", n, len(want))
			}
			for id, text := range want {
				if got, err := os.ReadFile(filepath.Join(inbox, id)); string(got) != text {
					t.Errorf("%s: %q, %v, want %q", id, got, err, text)
				}
			}
			gatewaytest.WaitFor(t, "no marks", func() bool {
				return !slices.ContainsFunc(files(t, filepath.Join(g.home, "Maildir", "tmp")), func(name string) bool { return strings.HasSuffix(name, ".done") })
			})
			ran, err := os.ReadFile(begun)
			if n := bytes.Count(ran, []byte("\n")); err != nil || n != servers {
				t.Errorf("%d sftp-servers, want %d, %v", n, servers, err)
			}
		})
	}
}

// configure sets the guest's sftp-server, a script, and adds a line to the configuration of its sshd.
func (g *guest) configure(t *testing.T, server, line string) {
	t.Helper()
	const script = "/run/server" // the user can read it there
	conf := filepath.Join(g.dir, "conf")
	write(t, script, fmt.Appendf(nil, "#!/bin/sh\n%s\n", server))
	gatewaytest.Must(t, os.Chmod(script, 0o755))
	text, err := os.ReadFile(conf)
	gatewaytest.Must(t, err)
	text = bytes.Replace(text, []byte("internal-sftp"), []byte(script), 1)
	write(t, conf, fmt.Appendf(text, "%s\n", line))
}

// A backlog gets into a guest in which only the first sftp-server of a connection works. The others are held up at
// their start, or at the first request, and end with the connection.
func TestBacklogBesideServersThatHang(t *testing.T) {
	for name, hang := range map[string]string{
		"at its start":         "exec cat >/dev/null",
		"at the first request": "(head -c 9; exec cat >/dev/null) | /usr/lib/openssh/sftp-server",
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			// sshd runs each by a shell. The parent of these is that of the connection.
			g.configure(t, "read -r _ _ _ conn _ </proc/$PPID/stat; mkdir $HOME/first.$conn && exec /usr/lib/openssh/sftp-server\n"+hang, "")
			f := start(t, t.TempDir(), func(c *Config) {
				c.SSHKeyFile, c.Dial = g.keyFile, g.dialVM
				c.deliver = deliver.DefaultTimes()
				c.deliver.Step = 2 * time.Second
			})
			vm := f.addAs(t, "hello", gateway.NewID(), g.hostKey)
			var ids []string
			for i := range 40 {
				ids = append(ids, f.deliverTo(t, vm, fmt.Sprint("number ", i)))
			}
			g.up(t)
			f.started(t, vm)
			for _, id := range ids {
				f.awaitDelivery(t, vm, id)
			}
			if n := len(files(t, filepath.Join(g.home, "Maildir", "new"))); n != len(ids) {
				t.Errorf("%d files, want %d", n, len(ids))
			}
		})
	}
}
