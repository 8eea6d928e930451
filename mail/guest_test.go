package mail

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// guest is a real sshd on loopback that plays a VM: its user lodge, its home, its host key.
type guest struct {
	home    string
	hostKey string // authorized_keys line
	keyFile string // of the host
	addr    string
	dir     string
	stop    func()

	mu    sync.Mutex
	conns []net.Conn
}

// dial is how the server under test reaches the guest.
func (g *guest) dial(ctx context.Context) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", g.addr)
	if err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.conns = append(g.conns, c)
	}
	return c, err
}

func (g *guest) dialVM(ctx context.Context, m gateway.VM, _ uint16) (net.Conn, error) {
	if m.Name != "hello" {
		return nil, fmt.Errorf("%s is off", m.Name)
	}
	return g.dial(ctx)
}

// cut ends every connection to the guest.
func (g *guest) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

const (
	guestUID   = 61000
	userHome   = "/run/guest"
	authorized = "/run/authorized"
)

var makeUser = sync.OnceValue(func() error { return addUser() })

// addUser makes the login user, in this sandbox's view of /etc/passwd only.
func addUser() error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", gateway.GuestUser, guestUID, guestUID, userHome)
	if err := os.WriteFile("/run/passwd", append(passwd, line...), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return err
	}
	return syscall.Mount("/run/passwd", "/etc/passwd", "", syscall.MS_BIND, "")
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	gatewaytest.Must(t, makeUser())
	gatewaytest.Must(t, os.RemoveAll(userHome))
	gatewaytest.Must(t, os.Mkdir(userHome, 0o700))
	gatewaytest.Must(t, os.Chown(userHome, guestUID, guestUID))
	dir := t.TempDir()
	g := &guest{home: userHome, dir: dir, keyFile: filepath.Join(dir, "host")}
	g.hostKey = keyPair(t, filepath.Join(dir, "guest"))
	gatewaytest.Must(t, os.WriteFile(authorized, []byte(keyPair(t, g.keyFile)), 0o644)) // sshd reads it as the user
	l := listen(t)                                                                      // to find a free port
	g.addr = l.Addr().String()
	gatewaytest.Must(t, l.Close())
	_, port, _ := net.SplitHostPort(g.addr)
	write(t, filepath.Join(dir, "conf"), fmt.Appendf(nil, "Port %s\nListenAddress 127.0.0.1\nHostKey %s/guest\nAuthorizedKeysFile %s\n"+
		"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n", port, dir, authorized))
	t.Cleanup(func() { g.down() })
	return g
}

// up starts the guest's sshd.
func (g *guest) up(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(g.dir, "conf"))
	var log gatewaytest.Log
	cmd.Stderr = &log
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sshd: %s", log.String())
		}
	})
	// Sessions outlive the listener and hold its log open: what they have read of a connection that is cut, they still
	// carry out, also on files of a message that was delivered again and recorded by then.
	cmd.WaitDelay = 10 * time.Second
	gatewaytest.Must(t, cmd.Start())
	g.stop = func() {
		_ = cmd.Process.Kill()
		g.cut()
		_ = cmd.Wait()
	}
	gatewaytest.WaitFor(t, "sshd listens", func() bool { return log.Count("Server listening") > 0 })
}

func (g *guest) down() {
	if g.stop != nil {
		g.stop()
		g.stop = nil
	}
}

// keyPair writes a private key and returns its public half.
func keyPair(t *testing.T, path string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	gatewaytest.Must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	gatewaytest.Must(t, err)
	write(t, path, pem.EncodeToMemory(block))
	key, err := ssh.NewPublicKey(public)
	gatewaytest.Must(t, err)
	return string(ssh.MarshalAuthorizedKey(key))
}

// withGuest is a server whose VM "hello" is g.
func withGuest(t *testing.T, dir string, g *guest) (*fixture, gateway.Identity) {
	t.Helper()
	f := start(t, dir, func(c *Config) {
		c.SSHKeyFile, c.Dial = g.keyFile, g.dialVM
	})
	return f, f.addAs(t, "hello", gateway.NewID(), g.hostKey)
}

// deliverTo sends one message and returns its queue id.
func (f *fixture) deliverTo(t *testing.T, vm gateway.Identity, body string) string {
	t.Helper()
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	c.ask("RCPT TO:<x@"+vm.Name+"."+domain+">", "250")
	c.ask("DATA", "354")
	c.ask("Subject: x\r\n\r\n"+body+"\r\n.", "250")
	c.ask("QUIT", "221")
	return f.list(t, vm)[0].QueueID
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	gatewaytest.Must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestDeliveryByteForByte(t *testing.T) {
	g := newGuest(t)
	g.up(t)
	f, vm := withGuest(t, t.TempDir(), g)
	for _, size := range []int{10, 100_000, 5 << 20} {
		id := f.deliverTo(t, vm, strings.Repeat(strings.Repeat("z", 62)+"\r\n", size/64))
		f.awaitDelivery(t, vm, id)
		path := filepath.Join(g.home, "Maildir/new", id)
		got, err := os.ReadFile(path)
		gatewaytest.Must(t, err)
		if want := f.read(t, vm, id); string(got) != string(want) {
			t.Errorf("%d bytes in the guest differ from %d bytes of the record", len(got), len(want))
		}
		info, err := os.Stat(path)
		gatewaytest.Must(t, err)
		if info.Mode().Perm() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != guestUID {
			t.Errorf("mode %v, owner %d", info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
		}
	}
	leftNothing(t, filepath.Join(g.home, "Maildir/tmp"))
	if info, err := os.Stat(filepath.Join(g.home, "Maildir")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("Maildir: %v, %v", info, err)
	}
}

// Mail waits for a VM that is off, others go on, and a start brings it at once; the log has
// each change once.
func TestDeliveryWaits(t *testing.T) {
	g := newGuest(t)
	f, vm := withGuest(t, t.TempDir(), g)
	off := f.add(t, "off")
	f.deliverTo(t, off, "never")
	var ids []string
	for range 5 {
		ids = append(ids, f.deliverTo(t, vm, "wait"))
	}
	gatewaytest.WaitFor(t, "both wait", func() bool { return f.log.Count("mail delivery failed") == 2 })
	g.up(t)
	f.started(t, vm)
	f.awaitDelivery(t, vm, ids[4])
	for _, id := range ids {
		if _, err := os.Stat(filepath.Join(g.home, "Maildir/new", id)); err != nil {
			t.Error(err)
		}
	}
	gatewaytest.WaitFor(t, "a line for the round", func() bool { return f.log.Count("mail delivery resumed") > 0 })
	if f.log.Count("mail delivery resumed") != 1 || f.log.Count("mail delivery failed") != 2 {
		t.Error("the log does not have each change once")
	}
	if f.list(t, off)[0].Delivered {
		t.Error("delivered to a VM that is off")
	}
}

// A Maildir that is broken makes only its own mail wait, and mail comes once it is repaired.
func TestBrokenMaildir(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, g *guest) (repair func()){
		"is a file": func(t *testing.T, g *guest) func() {
			t.Helper()
			path := filepath.Join(g.home, "Maildir")
			write(t, path, nil)
			return func() { gatewaytest.Must(t, os.Remove(path)) }
		},
		"not allowed": func(t *testing.T, g *guest) func() {
			t.Helper()
			gatewaytest.Must(t, os.Chown(g.home, 0, 0))
			return func() { gatewaytest.Must(t, os.Chown(g.home, guestUID, guestUID)) }
		},
		"disk full": func(t *testing.T, g *guest) func() {
			t.Helper()
			path := filepath.Join(g.home, "Maildir")
			gatewaytest.Must(t, os.Mkdir(path, 0o700))
			gatewaytest.Must(t, syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=64k,uid=%d", guestUID)))
			t.Cleanup(func() { gatewaytest.Must(t, syscall.Unmount(path, syscall.MNT_DETACH)) })
			fill(t, filepath.Join(path, "filler"))
			return func() { gatewaytest.Must(t, os.Remove(filepath.Join(path, "filler"))) }
		},
		"new is a dangling link": func(t *testing.T, g *guest) func() {
			t.Helper()
			path := filepath.Join(g.home, "Maildir")
			gatewaytest.Must(t, os.Mkdir(path, 0o700))
			gatewaytest.Must(t, os.Chown(path, guestUID, guestUID))
			gatewaytest.Must(t, os.Symlink("/nonexistent", filepath.Join(path, "new")))
			return func() { gatewaytest.Must(t, os.Remove(filepath.Join(path, "new"))) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			g.up(t)
			repair := breakIt(t, g)
			f, vm := withGuest(t, t.TempDir(), g)
			id := f.deliverTo(t, vm, strings.Repeat("x", 1000))
			gatewaytest.WaitFor(t, "mail waits", func() bool { return f.log.Count("mail delivery failed") == 1 })
			repair()
			f.started(t, vm)
			f.awaitDelivery(t, vm, id)
			got, err := os.ReadFile(filepath.Join(g.home, "Maildir/new", id))
			gatewaytest.Must(t, err)
			if string(got) != string(f.read(t, vm, id)) {
				t.Error("the copy differs")
			}
		})
	}
}

// A guest with another host key gets nothing.
func TestForeignHostKey(t *testing.T) {
	g := newGuest(t)
	g.up(t)
	g.hostKey = keyPair(t, filepath.Join(g.dir, "other"))
	f, vm := withGuest(t, t.TempDir(), g)
	f.deliverTo(t, vm, "secret")
	gatewaytest.WaitFor(t, "refusal", func() bool { return f.log.Count("host key mismatch") == 1 })
	if _, err := os.Stat(filepath.Join(g.home, "Maildir")); err == nil {
		t.Error("something was written")
	}
}

// Killing sshd in the middle of many deliveries brings every message once.
func TestGuestDiesAgainAndAgain(t *testing.T) {
	g := newGuest(t)
	f, vm := withGuest(t, t.TempDir(), g)
	var last string
	for i := range 60 {
		last = f.deliverTo(t, vm, fmt.Sprint("message ", i))
	}
	for round := range 5 {
		g.up(t)
		f.started(t, vm)
		before := len(pending(t, f, vm))
		gatewaytest.WaitFor(t, "some progress", func() bool { n := len(pending(t, f, vm)); return n == 0 || n < before-round-2 })
		g.down()
	}
	g.up(t)
	f.started(t, vm)
	f.awaitDelivery(t, vm, last)
	gatewaytest.WaitFor(t, "those that were cut off", func() bool { return len(pending(t, f, vm)) == 0 })
	if n := len(files(t, g.home+"/Maildir/new")); n != 60 {
		t.Errorf("%d files, want 60", n)
	}
	leftNothing(t, g.home+"/Maildir/tmp")
}

func pending(t *testing.T, f *fixture, vm gateway.Identity) []gateway.Message {
	t.Helper()
	var waiting []gateway.Message
	for _, m := range f.list(t, vm) {
		if !m.Delivered {
			waiting = append(waiting, m)
		}
	}
	return waiting
}

// Removing a VM while its mail waits ends its worker and takes its mail.
func TestRemove(t *testing.T) {
	g := newGuest(t)
	dir := t.TempDir()
	f, vm := withGuest(t, dir, g)
	f.deliverTo(t, vm, "x")
	if err := f.Remove(t.Context(), vm.ID); err == nil {
		t.Error("mail of a VM that lives was removed")
	}
	_, err := f.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error { m.Desired = gateway.Removed; return nil })
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, f.Remove(t.Context(), vm.ID))
	if _, err := os.Stat(filepath.Join(dir, vm.ID.String())); err == nil {
		t.Error("the mailbox is still there")
	}
	if _, err := f.List(t.Context(), vm.ID, 0); gateway.KindOf(err) != gateway.KindNotFound {
		t.Error(err)
	}
	again := f.addAs(t, "hello", gateway.NewID(), g.hostKey)
	if n := len(f.list(t, again)); n != 0 {
		t.Errorf("the new VM sees %d messages of the old one", n)
	}
}
