package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// packaged is a copy of packaging/ with all its paths in a temporary directory. The programs that
// would change the host are replaced by functions.
type packaged struct{ dir string }

func newPackaged(t *testing.T) packaged {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the scripts need root")
	}
	p := packaged{t.TempDir()}
	if err := os.CopyFS(filepath.Join(p.dir, "packaging"), os.DirFS("../../packaging")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"state", "run", "log", "usrbin", "share"} {
		if err := os.Mkdir(filepath.Join(p.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// run runs a script, whose programs are functions with these bodies, and returns its output.
// Calls that have no body are printed.
func (p packaged) run(t *testing.T, script, main string, bodies map[string]string) (string, error) {
	t.Helper()
	all := map[string]string{"has_systemd": "false"}
	for _, name := range []string{"virsh", "ip", "nft", "systemctl", "groupadd", "groupdel", "pidof", "kill"} {
		all[name] = `echo "` + name + ` $*"`
	}
	all["ip"], all["timeout"] = ":", `shift; "$@"`
	maps.Copy(all, bodies)
	var more strings.Builder
	fmt.Fprintf(&more, "\nstate=%[1]s/state run_dir=%[1]s/run log=%[1]s/log/lodged.log pid_file=%[1]s/run/lodged.pid unit=%[1]s/unit bin=%[1]s/usrbin share=%[1]s/share by_hand=%[1]s/run/by-hand group_marker=%[1]s/state/.group made_dirs=%[1]s/state/.directories\n", p.dir)
	for name, body := range all {
		fmt.Fprintf(&more, "%s() { %s\n}\n", name, body)
	}
	p.edit(t, "common", func(s string) string { return s + more.String() })
	p.edit(t, script, func(s string) string { return strings.TrimSuffix(strings.TrimSpace(s), `main "$@"`) + main + "\n" })
	cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(p.dir, "packaging", script)) //nolint:gosec // a copy
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}                  // what it mounts ends with it
	cmd.Env = append(os.Environ(), "YES=1")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("no mount namespace: %v", err)
	}
	return string(out), err
}

func (p packaged) edit(t *testing.T, name string, f func(string) string) {
	t.Helper()
	original, err := os.ReadFile(filepath.Join("../../packaging", name))
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, "packaging", name), []byte(f(string(original))), 0o755) //nolint:gosec // a script
	}
	if err != nil {
		t.Fatal(err)
	}
}

// make up warns of a group lodge that it has not made, and make purge leaves that group.
func TestGroup(t *testing.T) {
	const exists, absent = "return 0", "return 2"
	for name, test := range map[string]struct {
		getent          string
		interrupted     bool // the first make up
		up, purge       string
		notUp, notPurge string
	}{
		"made by up":             {absent, false, "groupadd --system lodge", "groupdel lodge", "warning", "stays"},
		"made by interrupted up": {absent, true, "groupadd --system lodge", "groupdel lodge", "warning", "stays"},
		"made by others":         {exists, false, "administer Lodge", "stays", "groupadd", "groupdel"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPackaged(t)
			bodies := map[string]string{"getent": test.getent}
			if test.interrupted {
				bodies["groupadd"] = `echo "groupadd $*"; exit 9`
			}
			up, err := p.run(t, "up", "make_group", bodies)
			if (err != nil) != test.interrupted || !strings.Contains(up, test.up) || strings.Contains(up, test.notUp) {
				t.Errorf("up: %v\n%s", err, up)
			}
			again, err := p.run(t, "up", "make_group", map[string]string{"getent": exists})
			if err != nil || strings.Contains(again, "administer Lodge") != (test.getent == exists) {
				t.Errorf("up again: %v\n%s", err, again)
			}
			purge, err := p.run(t, "purge", "main", map[string]string{"getent": exists})
			if err != nil || !strings.Contains(purge, test.purge) || strings.Contains(purge, test.notPurge) {
				t.Errorf("purge: %v\n%s", err, purge)
			}
		})
	}
}

// make purge continues when the group is in use, as the primary group of a user.
func TestPurgeWithGroupInUse(t *testing.T) {
	p := newPackaged(t)
	if _, err := p.run(t, "up", "make_group", map[string]string{"getent": "return 2"}); err != nil {
		t.Fatal(err)
	}
	out, err := p.run(t, "purge", "main", map[string]string{"getent": ":", "groupdel": "return 8"})
	if err != nil || !strings.Contains(out, "stays") || !strings.Contains(out, "Lodge is gone") {
		t.Errorf("%v\n%s", err, out)
	}
	if left := p.left(t); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// make purge removes a VM with checkpoints, and continues at a file system that is mounted in the
// state directory.
func TestPurgeRemovesAllElse(t *testing.T) {
	p := newPackaged(t)
	const vm = "lodge-01234567-89ab-cdef-0123-456789abcdef"
	out, err := p.run(t, "purge", `mkdir "$state/disks"; touch "$state/other" "$run_dir/other"; mount -t tmpfs tmpfs "$state/disks"; main`, map[string]string{
		"getent": "return 2",
		"virsh":  `[[ $* != *"list --all"* ]] || echo ` + vm + `; echo "virsh $*" >&2`,
	})
	if err != nil || !strings.Contains(out, "not all of "+p.dir+"/state") || !strings.Contains(out, "--checkpoints-metadata "+vm) {
		t.Errorf("%v\n%s", err, out)
	}
	if left := p.left(t); !slices.Equal(left, []string{p.dir + "/state"}) {
		t.Errorf("left %q", left)
	}
	if left, err := os.ReadDir(p.dir + "/state"); len(left) != 1 || left[0].Name() != "disks" {
		t.Errorf("left %v, %v", left, err)
	}
}

// left returns what make purge has left.
func (p packaged) left(t *testing.T) []string {
	t.Helper()
	left, err := filepath.Glob(p.dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(left, func(path string) bool {
		return slices.Contains([]string{"packaging", "docs", "usrbin", "share"}, filepath.Base(path))
	})
}

// make up installs the manual page and the completions. make purge removes these and the
// directories that make up made for them.
func TestDocuments(t *testing.T) {
	p := newPackaged(t)
	if err := os.CopyFS(filepath.Join(p.dir, "docs/man"), os.DirFS("../../docs/man")); err != nil {
		t.Fatal(err)
	}
	lodge := filepath.Join(p.dir, "usrbin/lodge")
	for file, text := range map[string]string{
		lodge: "#!/bin/sh\necho $*\n",
		filepath.Join(p.dir, "share/fish/theirs"):  "",
		filepath.Join(p.dir, "share/man/theirs"):   "",
		filepath.Join(p.dir, "share/zsh/lodge.sh"): "",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil { //nolint:gosec // a script
			t.Fatal(err)
		}
	}
	before := p.tree(t)
	const up = `umask 077; install_documents; echo "changed=$changed"`
	for i, step := range []struct {
		name   string
		bodies map[string]string
		want   string // part of the output
	}{
		{"interrupted", map[string]string{"mv": "exit 9"}, ""},
		{"made", nil, "changed=yes"},
		{"again", nil, "changed=no"},
	} {
		out, err := p.run(t, "up", up, step.bodies)
		if (err != nil) != (i == 0) || !strings.Contains(out, step.want) {
			t.Fatalf("%s: %v\n%s", step.name, err, out)
		}
	}
	for file, want := range map[string]string{
		"man/man1/lodge.1":                     ".TH",
		"bash-completion/completions/lodge":    "completion bash\n",
		"zsh/site-functions/_lodge":            "completion zsh\n",
		"fish/vendor_completions.d/lodge.fish": "completion fish\n",
	} {
		file = filepath.Join(p.dir, "share", file)
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
		for path, mode := range map[string]os.FileMode{file: 0o644, filepath.Dir(file): 0o755} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v; want %v", path, info, err, mode)
			}
		}
	}
	if err := os.WriteFile(lodge, []byte("#!/bin/sh\necho new $*\n"), 0o755); err != nil { //nolint:gosec // a script
		t.Fatal(err)
	}
	if out, err := p.run(t, "up", up, map[string]string{"mv": "exit 9"}); err == nil {
		t.Fatalf("not interrupted:\n%s", out)
	}
	if out, err := p.run(t, "purge", "main", map[string]string{"getent": "return 2"}); err != nil {
		t.Errorf("purge: %v\n%s", err, out)
	}
	if diff := cmp.Diff(before, p.tree(t)); diff != "" {
		t.Errorf("after purge (-before +after):\n%s", diff)
	}
}

// Where no udev runs, packaging/deps sets the group and mode of /dev/kvm as udev does, and make up
// counts that as a change. It leaves a device that was opened, and a machine without one.
func TestDepsOpensKVM(t *testing.T) {
	if _, err := exec.CommandContext(t.Context(), "getent", "group", "kvm").Output(); err != nil {
		t.Skipf("QEMU is not installed: %v", err)
	}
	const (
		device = `[ -e /dev/kvm ] || exit 77; mknod "$state/kvm" c 10 232; mount --bind "$state/kvm" /dev/kvm; `
		closed = device + "chmod 600 /dev/kvm; "
		noUdev = "mkdir -p /run/udev; mount -t tmpfs tmpfs /run/udev; "
		udev   = noUdev + `python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/run/udev/control")'; `
		absent = "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; ln -s /proc/self/fd /dev/fd; "
		show   = `echo "changed=$changed $(stat -c %a:%G /dev/kvm 2>&1)"`
	)
	for name, test := range map[string]struct{ machine, want string }{
		"as the kernel makes it":      {noUdev + closed + "prepare; ", "changed=yes 660:kvm"},
		"interrupted":                 {noUdev + closed + "chgrp kvm /dev/kvm; prepare; ", "changed=yes 660:kvm"},
		"opened before":               {noUdev + closed + "prepare; changed=no; prepare; ", "changed=no 660:kvm"},
		"opened to all":               {noUdev + device + "chmod 666 /dev/kvm; prepare; ", "changed=no 666:root"},
		"with udev":                   {udev + closed + "prepare; ", "changed=no 600:root"},
		"no device":                   {noUdev + absent + "prepare; ", "changed=no stat: cannot stat"},
		"the packages of tests alone": {noUdev + closed + "packaging/deps test; ", "changed=no 600:root"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := newPackaged(t).run(t, "up", test.machine+show, map[string]string{"dpkg-query": "echo installed"})
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 77 {
				t.Skip("nothing can be mounted over /dev/kvm")
			}
			if err != nil || !strings.Contains(out, test.want) {
				t.Errorf("%v\n%s; want %s", err, out, test.want)
			}
		})
	}
}

// tree lists what is below share.
func (p packaged) tree(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(p.dir, "share"), func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// Without systemd, make up makes a daemon of an older program run the new one, and stops one that
// does not.
func TestUpUpgrades(t *testing.T) {
	for name, test := range map[string]struct{ exe, want, not string }{
		"older":          {`readlink() { [ -e "$state/new" ] && echo "$bin/lodged" || echo old; }; kill() { echo "kill $*"; touch "$state/new"; }`, "kill -USR2", "stop"},
		"does not react": {`readlink() { echo old; }`, "kill -USR2 7\nstop\nstart", ""},
		"hangs":          {`readlink() { echo "$bin/lodged"; }`, "stop\nstart", "USR2"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := newPackaged(t).run(t, "up", `wait_until() { shift; "$@"; }; start_by_hand() { echo start; }; `+test.exe+`; upgrade_by_hand || { stop_daemon; start_by_hand; }`,
				map[string]string{"daemon_pid": "echo 7", "stop_daemon": "echo stop"})
			if err != nil || !strings.Contains(out, test.want) || test.not != "" && strings.Contains(out, test.not) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
