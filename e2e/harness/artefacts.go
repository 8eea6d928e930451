package harness

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Artefact is the path of a file that is kept, whether the test passes or not. Tests run in e2e or
// right below it.
func Artefact(t testing.TB, name string) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(wd) != "e2e" {
		wd = filepath.Dir(wd)
	}
	dir := filepath.Join(wd, "artefacts", strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for people to read
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// keepArtefacts copies the logs of a test that has failed.
func (h *Host) keepArtefacts(t testing.TB) {
	t.Helper()
	if !t.Failed() {
		return
	}
	logs, err := filepath.Glob(filepath.Join(h.StateDir, "console", "*.log"))
	if err != nil {
		t.Errorf("list console logs: %v", err)
	}
	for _, from := range append(logs, filepath.Join(h.Dir, "lodged.log")) {
		if err := copyFile(Artefact(t, filepath.Base(from)), from); err != nil && !os.IsNotExist(err) {
			t.Errorf("keep %s: %v", from, err)
			continue
		}
		t.Logf("kept: %s", Artefact(t, filepath.Base(from)))
	}
}

// consoleEnd is how much of a console a failed test shows, in bytes.
const consoleEnd = 2000

// KeepConsole keeps the serial console of a VM that the test removes, and shows its end, if the test
// has failed.
func (v *VM) KeepConsole(t testing.TB) {
	t.Helper()
	if !t.Failed() {
		return
	}
	log := v.host.TryLodge(v.host.owner, "logs", v.Name).Text()
	file := Artefact(t, v.Name+".log")
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Errorf("keep the console of %s: %v", v.Name, err)
	}
	t.Logf("kept: %s, which ends with\n%s", file, log[max(0, len(log)-consoleEnd):])
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fs.FileMode(0o644))
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close() // the copy's error is returned
		return err
	}
	return out.Close()
}
