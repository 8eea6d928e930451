package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway/api"
)

// dialEnv makes the test binary a caller: it connects to that socket and prints what it reads.
const dialEnv = "CONTROL_TEST_DIAL"

func TestMain(m *testing.M) {
	if socket := os.Getenv(dialEnv); socket != "" {
		c, err := new(net.Dialer).DialContext(context.Background(), "unix", socket)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		text, _ := io.ReadAll(c) // until it is closed
		fmt.Print(string(text))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// dialAs runs a caller with the given credentials.
func dialAs(t *testing.T, socket string, cred syscall.Credential) string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(filepath.Dir(socket), "caller")
	if err := os.WriteFile(binary, own, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = []string{dialEnv + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &cred}
	out, _ := cmd.CombinedOutput() // it has what went wrong
	return strings.TrimSpace(string(out))
}

// openDir returns a directory that everybody may pass through.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhoMayUseTheSocket(t *testing.T) {
	const lodge, other = 64000, 65000
	member := syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{other, lodge}}
	many := member
	for i := range uint32(100) {
		many.Groups = append([]uint32{i + 1000}, many.Groups...)
	}
	for name, test := range map[string]struct {
		cred  syscall.Credential
		group int
		mode  os.FileMode // that the socket is opened to, to see the second check; 0 leaves it
		want  string
	}{
		"root":                    {syscall.Credential{}, lodge, 0, "welcome"},
		"root without the group":  {syscall.Credential{}, noGroup, 0, "welcome"},
		"a member":                {member, lodge, 0, "welcome"},
		"a member of many groups": {many, lodge, 0, "welcome"},
		"by the primary group":    {syscall.Credential{Uid: 65534, Gid: lodge}, lodge, 0, "welcome"},
		"another":                 {syscall.Credential{Uid: 65534, Gid: 65534}, lodge, 0, "permission denied"},
		"no such group":           {member, noGroup, 0, "permission denied"},
		"another, by the mode":    {syscall.Credential{Uid: 65534, Gid: 65534}, lodge, 0o666, ""},
		"no group, by the mode":   {member, noGroup, 0o666, ""},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(openDir(t), "s")
			l, err := listenFor(t.Context(), socket, test.group)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if test.mode != 0 {
				if err := os.Chmod(socket, test.mode); err != nil {
					t.Fatal(err)
				}
			}
			go func() {
				for {
					c, err := l.Accept()
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if callerOf(c) == api.Owner() {
						_, _ = io.WriteString(c, "welcome")
					}
					_ = c.Close()
				}
			}()
			if got := dialAs(t, socket, test.cred); !strings.HasSuffix(got, test.want) || test.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestErrorForOthersNamesTheGroup(t *testing.T) {
	c := NewClient("/run/x.sock")
	err := c.explain(t.Context(), os.ErrPermission)
	text, _ := json.Marshal(err)
	if !strings.Contains(string(text), "Use sudo") || !strings.Contains(string(text), "group lodge") || !strings.Contains(string(text), "join") {
		t.Errorf("%s", text)
	}
}
