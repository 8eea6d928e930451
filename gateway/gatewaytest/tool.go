package gatewaytest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Tool builds a program that .lint/<mod>.mod pins, unless Go's build cache has it, and returns its path.
// Tests in a sandbox, which has no network for the modules, call it outside first.
func Tool(mod, name string) (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output() //nolint:noctx // shared by all tests
	if err != nil {
		return "", fmt.Errorf("find go.mod: %w", err)
	}
	// Without the lock one test binary can start a program that the go of another still writes. The
	// directory is locked, since go locks the file itself.
	dir := filepath.Join(filepath.Dir(string(bytes.TrimSpace(out))), ".lint")
	lock, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // nothing was written
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", dir, err)
	}
	cmd := exec.Command("go", "tool", "-n", "-modfile="+filepath.Join(dir, mod+".mod"), name) //nolint:gosec,noctx // names of tests, shared by all
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err = cmd.Output(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, stderr.Bytes())
	}
	return string(bytes.TrimSpace(out)), nil
}
