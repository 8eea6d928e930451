package mail

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// A backlog gets into a guest once and whole, by several sftp-servers, or by one where the guest allows no more.
func TestBacklog(t *testing.T) {
	for sessions, servers := range map[int]int{1: 1, 10: 4} {
		t.Run(fmt.Sprintf("MaxSessions %d", sessions), func(t *testing.T) {
			g := newGuest(t)
			conf := filepath.Join(g.dir, "conf")
			text, err := os.ReadFile(conf)
			gatewaytest.Must(t, err)
			begun := filepath.Join(g.home, "begun") // each server leaves a line there
			text = bytes.Replace(text, []byte("internal-sftp"), fmt.Appendf(nil, "/bin/sh -c 'echo >>%s; exec /usr/lib/openssh/sftp-server'", begun), 1)
			write(t, conf, fmt.Appendf(text, "MaxSessions %d\n", sessions))
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
