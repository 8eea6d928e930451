package inventory_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/inventory"
)

// The tests have the directories that the script lists for themselves, but for /etc.
func TestMain(m *testing.M) {
	sandboxtest.Main(m, sandboxtest.Tmpfs("/usr/local", "/opt", "/srv", "/home", "/root", "/var/www", "/var/spool/cron"))
}

// inspect runs the script here, and reads what it prints.
func inspect(t *testing.T) (inventory.Inventory, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-s")
	cmd.Stdin = bytes.NewReader(inventory.Script)
	out, err := cmd.StdoutPipe()
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, cmd.Start())
	inv, err := inventory.Read(out)
	out.Close()    // as the host does with the session
	_ = cmd.Wait() // it may have been cut off
	return inv, err
}

// Names with newlines, of 4 KiB, and links that form loops are listed as they are, each once. A recipe
// has none of those that cannot be in one, and lists them.
func TestHostileNames(t *testing.T) {
	before, err := inspect(t)
	gatewaytest.Must(t, err)
	odd := []string{"/srv/a\nb", "/srv/# end", "/srv/# files", "/srv/\x01\x1b[2J", "/srv/-rf", "/srv/'\"$(reboot)`", "/srv/\xff\xfe", "/srv/ \t ", "/srv/" + strings.Repeat("n", 255)}
	for _, path := range odd {
		gatewaytest.Must(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	for path, to := range map[string]string{"/srv/self": "self", "/srv/up": "..", "/srv/ring1": "ring2", "/srv/ring2": "ring1", "/srv/nowhere": "a\nb\n", "/srv/root": "/"} {
		gatewaytest.Must(t, os.Symlink(to, path))
		odd = append(odd, path)
	}
	deep := "/srv/deep"
	gatewaytest.Must(t, os.Mkdir(deep, 0o755))
	for len(deep) < 4096-101 {
		deep += "/" + strings.Repeat("d", 99)
		gatewaytest.Must(t, os.Mkdir(deep, 0o755))
	}
	odd = append(odd, deep)
	gatewaytest.Must(t, syscall.Mkfifo("/srv/fifo", 0o600)) // which nobody opens
	now, err := inspect(t)
	gatewaytest.Must(t, err)
	c := inventory.Compare(before, now, nil)
	found := map[string]int{}
	for _, f := range c.Files {
		found[f.Path]++
	}
	for _, path := range append(odd, "/srv/fifo") {
		if found[path] != 1 {
			t.Errorf("%.80q is listed %d times", path, found[path])
		}
	}
	if len(c.Packages)+len(c.Units)+len(c.Accounts) > 0 || now.Cut {
		t.Errorf("%+v", c)
	}
	r, err := inventory.Recipe("blog", c, func(path string) ([]byte, bool) {
		data, err := os.ReadFile(path)
		return data, err == nil
	}, nil)
	gatewaytest.Must(t, err)
	for _, path := range []string{"/srv/a\nb", "/srv/\x01\x1b[2J", "/srv/\xff\xfe", "/srv/fifo"} {
		if !slices.ContainsFunc(r.LeftOut, func(l gateway.LeftOut) bool { return l.Path == path }) {
			t.Errorf("%q is not among what was left out", path)
		}
	}
	if strings.ContainsAny(r.UserData, "\x01\x1b") || !utf8.ValidString(r.UserData) {
		t.Errorf("user data with control characters:\n%s", r.UserData)
	}
}

// A guest with 1,000,000 files is listed as far as the limit, and no further: the host reads no more than
// that.
func TestAMillionFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 1,000,000 files")
	}
	gatewaytest.Must(t, syscall.Mount("tmpfs", "/opt", "tmpfs", 0, "mode=0755")) // which goes faster than 1,000,000 removals
	t.Cleanup(func() { gatewaytest.Must(t, syscall.Unmount("/opt", syscall.MNT_DETACH)) })
	gatewaytest.Must(t, os.WriteFile("/opt/file", nil, 0o600))
	for i := range 100 {
		dir := filepath.Join("/opt", fmt.Sprint("dir", i))
		gatewaytest.Must(t, os.Mkdir(dir, 0o755))
		for n := range 10_000 {
			gatewaytest.Must(t, os.Link("/opt/file", filepath.Join(dir, fmt.Sprint(n)))) // each is a file of its own to who lists them
		}
	}
	now, err := inspect(t)
	if err != nil || !now.Cut || len(now.Files) != 200_000 {
		t.Errorf("%d files, cut off: %v, %v", len(now.Files), now.Cut, err)
	}
}
