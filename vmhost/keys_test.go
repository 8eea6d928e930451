package vmhost

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestLoginKeyIsMadeOnce(t *testing.T) {
	file, log := filepath.Join(t.TempDir(), "key"), slog.New(slog.DiscardHandler)
	_, first, err := loginAgent(file, log)
	if err != nil {
		t.Fatal(err)
	}
	_, again, err := loginAgent(file, log)
	if err != nil || first != again {
		t.Errorf("second time: %q, %v; want %q", again, err, first)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info, err)
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(first)); err != nil {
		t.Errorf("%q: %v", first, err)
	}
	if err := os.WriteFile(file, []byte("cut off"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := loginAgent(file, log); err == nil {
		t.Error("a key that cannot be read was replaced")
	}
}

// SSH names the socket that Agent serves, and a public key file that all may read. The agent has
// that key alone, and a private key that root alone may read.
func TestSSHNamesTheAgent(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // as in the unit
	vm := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, HostKey: "ssh-ed25519 AAAA"}
	c := Config{
		StateDir: t.TempDir(), RunDir: t.TempDir(), Directory: gatewaytest.NewDirectory(t, new(gatewaytest.Records), vm), Layers: new(gatewaytest.Layers), Checkpoints: new(gatewaytest.Checkpoints),
	}
	h, err := New(c)
	gatewaytest.Must(t, err)
	access, err := h.SSH(vm.ID)
	gatewaytest.Must(t, err)
	for file, want := range map[string]os.FileMode{access.PublicKeyFile: 0o644, c.LoginKeyFile(): 0o600} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", file, info, err, want)
		}
	}
	text, err := os.ReadFile(access.PublicKeyFile)
	gatewaytest.Must(t, err)
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	gatewaytest.Must(t, err)

	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", access.AgentSocket)
	gatewaytest.Must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- h.Agent().Serve(l) }()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", access.AgentSocket)
	gatewaytest.Must(t, err)
	keys, err := agent.NewClient(conn).List()
	if err != nil || len(keys) != 1 || string(keys[0].Blob) != string(public.Marshal()) {
		t.Errorf("the agent has %v, %v; want %s", keys, err, text)
	}
	gatewaytest.Must(t, errors.Join(conn.Close(), h.Agent().Shutdown(context.Background()), <-ended))
}
