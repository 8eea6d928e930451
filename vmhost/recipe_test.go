package vmhost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// hereShell runs commands on this machine.
type hereShell struct{ ctx context.Context } //nolint:containedctx // as that of guestShell

func (s hereShell) runAll(commands ...command) error {
	for _, c := range commands {
		cmd := exec.CommandContext(s.ctx, "sh", "-c", c.line)
		cmd.Stdin = bytes.NewReader(c.stdin)
		out, err := cmd.StdoutPipe()
		if err = errors.Join(err, cmd.Start()); err != nil {
			return err
		}
		err = c.read(out)
		out.Close()    // what is behind what read wants is not waited for
		_ = cmd.Wait() // its exit status has no meaning
		if err != nil {
			return err
		}
	}
	return nil
}
func (hereShell) explain(err error) error { return err }
func (hereShell) close()                  {}

// What was examined is what is handed out, whole; a file that has changed since, or is none, is refused
// before its last bytes.
func TestLargeFilesOfARecipe(t *testing.T) {
	g, dir := hereShell{t.Context()}, t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	content := map[string]string{
		"plain": strings.Repeat("some words\n", 20_000), "odd\nname": strings.Repeat("x\x00", 90_000),
		"key": strings.Repeat("-----BEGIN PRIVATE KEY-----\n", 9000), "log": strings.Repeat("line\n", 30_000), "turned": strings.Repeat("a", 70_000),
	}
	var all []gateway.FileChange
	for name, text := range content {
		gatewaytest.Must(t, os.WriteFile(at(name), []byte(text), 0o600))
		all = append(all, gateway.FileChange{Path: at(name), Type: "file", Change: gateway.Added, Bytes: int64(len(text))})
	}
	gatewaytest.Must(t, syscall.Mkfifo(at("fifo"), 0o600))
	all = append(all, gateway.FileChange{Path: at("fifo"), Bytes: 1 << 20}, gateway.FileChange{Path: at("gone"), Bytes: 1 << 20})
	found, err := scan(g, all)
	gatewaytest.Must(t, err)
	if len(found) != len(content) || found[at("key")].Why == "" || found[at("plain")].Why != "" {
		t.Errorf("found %+v", found)
	}
	read := func(name string) (string, error) {
		var b bytes.Buffer
		err := readObject(g, found[at(name)].Object, &b)
		return b.String(), err
	}
	for _, name := range []string{"plain", "odd\nname"} {
		if got, err := read(name); err != nil || got != content[name] {
			t.Errorf("%q: %d bytes, %v", name, len(got), err)
		}
	}
	gatewaytest.Must(t, os.WriteFile(at("log"), []byte(content["log"]+"one more\n"), 0o600))
	gatewaytest.Must(t, os.Remove(at("turned")))
	gatewaytest.Must(t, os.Symlink(at("key"), at("turned")))
	gatewaytest.Must(t, os.WriteFile(at("plain"), []byte(strings.Repeat("other word\n", 20_000)), 0o600)) // as long
	gatewaytest.Must(t, os.Remove(at("odd\nname")))
	for _, name := range []string{"log", "turned", "plain", "odd\nname"} {
		if got, err := read(name); gateway.KindOf(err) != gateway.KindConflict || len(got) >= len(content[name]) {
			t.Errorf("%q has changed: %d bytes, %v", name, len(got), err)
		}
	}
}

// An off VM's large files are read as far as its reader has room; the others are left out.
func TestLargeFilesOfAVMThatIsOff(t *testing.T) {
	r := &reader{}
	found, err := scan(r, []gateway.FileChange{{Path: "/srv/huge", Bytes: maxReaderObjects + 1}})
	if err != nil || !strings.Contains(found["/srv/huge"].Why, "start it") {
		t.Errorf("%+v, %v", found, err)
	}
	h := newHost(t)
	for _, o := range []gateway.RecipeObject{
		{Path: "srv/a", Bytes: 1}, {Path: "/srv/../etc/shadow", Bytes: 1}, {Path: "/srv/a", Bytes: 0}, {Path: "/srv/a", Bytes: gateway.MaxRecipeObjectBytes + 1},
	} {
		if err := h.RecipeFile(t.Context(), gateway.NewID(), o, io.Discard); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
