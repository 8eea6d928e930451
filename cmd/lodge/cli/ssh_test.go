package cli

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
)

func TestParseSSH(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want sshLine
		bad  bool
	}{
		"a session":              {in: "blog", want: sshLine{vm: "blog"}},
		"a command":              {in: "blog ls -l --json", want: sshLine{vm: "blog", command: []string{"ls", "-l", "--json"}}},
		"our flag":               {in: "blog --json", want: sshLine{vm: "blog", json: true}},
		"help":                   {in: "--help", want: sshLine{help: true}},
		"forwarding":             {in: "-NL 1:a:2 blog", want: sshLine{options: []string{"-NL", "1:a:2"}, vm: "blog"}},
		"a value within":         {in: "-oBatchMode=yes blog", want: sshLine{options: []string{"-oBatchMode=yes"}, vm: "blog"}},
		"a value like an option": {in: "-o -x blog", want: sshLine{options: []string{"-o", "-x"}, vm: "blog"}},
		"options behind the VM":  {in: "blog -t -p 22 top -b", want: sshLine{options: []string{"-t", "-p", "22"}, vm: "blog", command: []string{"top", "-b"}}},
		"two dashes":             {in: "-v -- blog -- -x", want: sshLine{options: []string{"-v"}, vm: "blog", command: []string{"-x"}}},
		"nothing":                {bad: true},
		"no VM":                  {in: "-v", bad: true},
		"no value":               {in: "blog -L", bad: true},
		"an unknown flag":        {in: "--jsn blog", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSSH(strings.Fields(test.in))
			if bad := gateway.KindOf(err) == gateway.KindInvalid; test.bad != bad {
				t.Fatalf("%+v, %v", got, err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(sshLine{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The real ssh and scp accept the options of lodge ssh and the blocks of lodge ssh-config, and
// refuse another host key.
func TestRealSSH(t *testing.T) {
	dir := t.TempDir()
	for _, key := range []string{"host", "other", "user"} {
		tool(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
	}
	port := serveSSH(t, dir)
	access := func(key string) gateway.SSHAccess {
		public := strings.Fields(tool(t, "cat", filepath.Join(dir, key+".pub")))
		return gateway.SSHAccess{
			Addr: "127.0.0.1", User: "root", KeyFile: filepath.Join(dir, "user"),
			KnownHosts: "[127.0.0.1]:" + port + " " + public[0] + " " + public[1],
		}
	}
	line := sshLine{options: []string{"-p", port}, command: []string{"echo", "in"}}
	if out := tool(t, "ssh", line.args(access("host"))...); out != "in\n" {
		t.Errorf("ssh printed %q", out)
	}
	out, err := exec.CommandContext(t.Context(), "ssh", line.args(access("other"))...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Host key verification failed") {
		t.Errorf("another host key: %v: %s", err, out)
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(sshBlock("blog blog.lodge.localhost", access("host"))+"    Port "+port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "scp", "-q", "-F", config, filepath.Join(dir, "host.pub"), "blog:"+filepath.Join(dir, "copy"))
	if got, want := tool(t, "cat", filepath.Join(dir, "copy")), tool(t, "cat", filepath.Join(dir, "host.pub")); got != want {
		t.Errorf("scp copied %q, want %q", got, want)
	}
}

// serveSSH runs sshd for root and the key "user" of dir until the test ends, and returns its port.
func serveSSH(t *testing.T, dir string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatal(err)
	}
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // Debian's sshd wants it
		t.Fatal(err)
	}
	sshd := exec.CommandContext(t.Context(), "/usr/sbin/sshd", "-D", "-e", "-f", os.DevNull, "-p", port,
		"-h", filepath.Join(dir, "host"), "-o", "ListenAddress=127.0.0.1", "-o", "PidFile=none", "-o", "StrictModes=no",
		"-o", "PermitRootLogin=yes", "-o", "AuthorizedKeysFile="+filepath.Join(dir, "user.pub"), "-o", "Subsystem=sftp internal-sftp")
	log, err := sshd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sshd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sshd.Process.Kill()
		_ = sshd.Wait() // it was killed
	})
	if _, err := log.Read(make([]byte, 1)); err != nil { // "Server listening on ..."
		t.Fatal(err)
	}
	return port
}

// tool runs a program that has to succeed, and returns what it printed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}
