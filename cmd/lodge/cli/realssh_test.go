package cli

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"lodge/gateway"
	"lodge/gateway/control"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/sshagent"
)

const (
	nobody     = 65534
	lodgeGroup = 64000
)

func TestMain(m *testing.M) { sandboxtest.Main(m, addGroup) }

// addGroup makes group lodge, in the sandbox alone.
func addGroup() error {
	const file = "/etc/group"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text = regexp.MustCompile(`(?m)^`+control.Group+`:.*\n`).ReplaceAll(text, nil)
	text = fmt.Appendf(text, "%s:x:%d:\n", control.Group, lodgeGroup)
	own := filepath.Join(os.TempDir(), fmt.Sprintf("lodge-group-%d", os.Getppid()))
	if err := os.WriteFile(own, text, 0o644); err != nil {
		return err
	}
	defer os.Remove(own) // the mount keeps it
	return syscall.Mount(own, file, "", syscall.MS_BIND, "")
}

// Those who may use the daemon's sockets log in by the agent, with lodge ssh and with the blocks of
// lodge ssh-config. Others cannot.
func TestRealSSH(t *testing.T) {
	h := newSSHHost(t)
	config := h.config(t, "")
	line := sshLine{options: []string{"-p", h.port}, command: []string{"echo", "in"}}
	for name, cred := range map[string]syscall.Credential{
		"root":     {},
		"a member": {Uid: nobody, Gid: nobody, Groups: []uint32{lodgeGroup}},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := runAs(t, cred, "ssh", line.args(h.access("host"))...); err != nil || out != "in\n" {
				t.Errorf("ssh: %v: %s", err, out)
			}
			if out, err := runAs(t, cred, "ssh", line.args(h.access("other"))...); err == nil || !strings.Contains(out, "Host key verification failed") {
				t.Errorf("another host key: %v: %s", err, out)
			}
			copied := filepath.Join(h.dir, "copy")
			if out, err := runAs(t, cred, "scp", "-q", "-F", config, config, "blog:"+copied); err != nil {
				t.Fatalf("scp: %v: %s", err, out)
			}
			if got, want := read(t, copied), read(t, config); got != want {
				t.Errorf("scp copied %q, want %q", got, want)
			}
		})
	}
	out, err := runAs(t, syscall.Credential{Uid: nobody, Gid: nobody}, "ssh", line.args(h.access("host"))...)
	if err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("another user: %v: %s", err, out)
	}
}

// The agent is not forwarded into the guest, neither by -A nor by the user's own settings. With
// lodge ssh -A the user's own agent is, if there is one.
func TestAgentIsNotForwarded(t *testing.T) {
	h := newSSHHost(t)
	const list = "ssh-add -l"
	config := h.config(t, "Host *\n    ForwardAgent yes\n")
	line := sshLine{options: []string{"-A", "-p", h.port}, command: []string{list}}
	t.Setenv("SSH_AUTH_SOCK", "")
	for name, args := range map[string][]string{
		"lodge ssh -A":     line.args(h.access("host")),
		"ssh -A":           {"-F", config, "-A", "blog", list},
		"ForwardAgent yes": {"-F", config, "blog", list},
	} {
		if out, err := runAs(t, syscall.Credential{}, "ssh", args...); err == nil || strings.Contains(out, "ED25519") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	_, own := newKey(t)
	socket := filepath.Join(h.dir, "own agent.sock")
	forwardable(t, own, socket)
	t.Setenv("SSH_AUTH_SOCK", socket)
	if out, err := runAs(t, syscall.Credential{}, "ssh", line.args(h.access("host"))...); err != nil || !strings.Contains(out, "the user's") {
		t.Errorf("lodge ssh -A with an own agent: %v: %s", err, out)
	}
	line.options = line.options[1:]
	if out, err := runAs(t, syscall.Credential{}, "ssh", line.args(h.access("host"))...); err == nil {
		t.Errorf("lodge ssh: %v: %s", err, out)
	}
}

// forwardable runs ssh-agent with a key until the test ends.
func forwardable(t *testing.T, key ed25519.PrivateKey, socket string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if _, err := out.Read(make([]byte, 1)); err != nil { // it prints the socket's name once it listens
		t.Fatal(err)
	}
	c, err := net.Dial("unix", socket) //nolint:noctx // a local socket answers at once
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := agent.NewClient(c).Add(agent.AddedKey{PrivateKey: key, Comment: "the user's"}); err != nil {
		t.Fatal(err)
	}
}

// sshHost is an sshd on loopback that accepts the key of an agent.
type sshHost struct {
	dir, port string
	public    map[string]string // the public keys "host", of sshd, "other" and "agent"
}

func newSSHHost(t *testing.T) sshHost {
	t.Helper()
	h := sshHost{dir: t.TempDir(), public: map[string]string{}}
	open(t, h.dir)
	private := map[string]ed25519.PrivateKey{}
	for _, name := range []string{"host", "other", "agent"} {
		h.public[name], private[name] = newKey(t)
	}
	block, err := ssh.MarshalPrivateKey(private["host"], "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(h.dir, "host"), string(pem.EncodeToMemory(block)), 0o600)
	write(t, filepath.Join(h.dir, "agent.pub"), h.public["agent"], 0o644)
	serveAgent(t, private["agent"], "the host's", filepath.Join(h.dir, "agent.sock"))
	h.port = serveSSH(t, h.dir)
	return h
}

// access is the access to a guest that has one of the keys.
func (h sshHost) access(key string) gateway.SSHAccess {
	return gateway.SSHAccess{
		Addr: "127.0.0.1", User: "root",
		PublicKeyFile: filepath.Join(h.dir, "agent.pub"), AgentSocket: filepath.Join(h.dir, "agent.sock"),
		KnownHosts: "[127.0.0.1]:" + h.port + " " + strings.TrimSpace(h.public[key]),
	}
}

// config writes the block of a guest with the key "host", and more lines, to a file.
func (h sshHost) config(t *testing.T, more string) (file string) {
	t.Helper()
	file = filepath.Join(h.dir, "config")
	write(t, file, sshBlock("blog blog.lodge.localhost", h.access("host"))+"    Port "+h.port+"\n"+more, 0o644)
	return file
}

// newKey makes a key pair; the public key is a line.
func newKey(t *testing.T) (public string, private ed25519.PrivateKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key)), private
}

// serveAgent runs an agent until the test ends.
func serveAgent(t *testing.T, key ed25519.PrivateKey, comment, socket string) {
	t.Helper()
	server, err := sshagent.New(key, comment, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Shutdown(context.Background()), <-ended); err != nil {
			t.Errorf("end the agent: %v", err)
		}
	})
}

// serveSSH runs sshd for root and the agent's key until the test ends, and returns its port.
func serveSSH(t *testing.T, dir string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatal(err)
	}
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // Debian's sshd needs it
		t.Fatal(err)
	}
	sshd := exec.CommandContext(t.Context(), "/usr/sbin/sshd", "-D", "-e", "-f", os.DevNull, "-p", port,
		"-h", filepath.Join(dir, "host"), "-o", "ListenAddress=127.0.0.1", "-o", "PidFile=none", "-o", "StrictModes=no",
		"-o", "PermitRootLogin=yes", "-o", "AuthorizedKeysFile="+filepath.Join(dir, "agent.pub"), "-o", "Subsystem=sftp internal-sftp")
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

// runAs runs a program as another user, and returns what it printed.
func runAs(t *testing.T, cred syscall.Credential, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &cred}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// write writes a file with this mode.
func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(file, []byte(text), mode), os.Chmod(file, mode)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// open lets everybody through a directory of t.TempDir and its parent.
func open(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
}
