package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// programs builds each kind of binary once per test binary.
type programs struct {
	once sync.Once
	dir  string
	err  error
	out  []byte
}

var plain, raced programs //nolint:gochecknoglobals // a build is worth sharing among all tests

// Programs returns a directory with lodged and lodge, built from this tree.
func Programs(t testing.TB, race bool) string {
	t.Helper()
	p := &plain
	if race {
		p = &raced
	}
	p.once.Do(func() { p.build(race) })
	if p.err != nil {
		t.Fatalf("build lodged and lodge: %v\n%s", p.err, p.out)
	}
	return p.dir
}

func (p *programs) build(race bool) {
	// The sandbox's /run is in memory and is removed with it.
	if p.dir, p.err = os.MkdirTemp("/run", "bin-"); p.err != nil {
		return
	}
	if p.err = os.Chmod(p.dir, 0o755); p.err != nil { //nolint:gosec // tests run programs as others too
		return
	}
	args := []string{"build", "-buildvcs=false", "-ldflags=-w", "-o", p.dir + "/"} // nobody debugs them, and links are faster
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "lodge/cmd/lodged", "lodge/cmd/lodge")...) //nolint:noctx // shared by all tests
	p.out, p.err = cmd.CombinedOutput()
}

// Program builds one more program of this tree, without cgo, so that it runs in any guest.
func Program(t testing.TB, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return file
}
