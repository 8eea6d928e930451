package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"lodge/gateway"
)

const (
	mailUID  = 61001 // of Postfix's Maildirs
	guestUID = 61002
)

// addUsers makes users of this mount namespace.
func (b *bench) addUsers() error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	home := filepath.Join(b.dir, "home")
	file := filepath.Join(b.dir, "passwd")
	text := fmt.Sprintf("%s%s:x:%d:%d::%s:/bin/sh\n", passwd, gateway.GuestUser, guestUID, guestUID, home)
	return errors.Join(
		os.Mkdir(home, 0o700), os.Chown(home, guestUID, guestUID),
		os.WriteFile(file, []byte(text), 0o644), //nolint:gosec // as passwd is
		syscall.Mount(file, "/etc/passwd", "", syscall.MS_BIND, ""),
		syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""), os.Mkdir("/run/sshd", 0o755), //nolint:gosec // sshd wants it
	)
}

// guest is an sshd of this host that plays a VM.
type guest struct {
	addr, hostKey, keyFile, inbox string
	cmd                           *exec.Cmd
}

func (b *bench) startGuest(ctx context.Context) (*guest, error) {
	dir := filepath.Join(b.dir, "guest")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // sshd reads keys as the user
		return nil, err
	}
	home := filepath.Join(b.dir, "home")
	g := &guest{keyFile: filepath.Join(dir, "key"), inbox: filepath.Join(home, "Maildir/new")}
	if err := os.RemoveAll(filepath.Join(home, "Maildir")); err != nil {
		return nil, err
	}
	public, err := keyPair(g.keyFile)
	if err != nil {
		return nil, err
	}
	if g.hostKey, err = keyPair(filepath.Join(dir, "host")); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("Port %[1]d\nListenAddress 127.0.0.1\nHostKey %[2]s/host\nAuthorizedKeysFile %[2]s/authorized\n"+
		"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n", port, dir)
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600),
		os.WriteFile(filepath.Join(dir, "authorized"), []byte(public), 0o644), //nolint:gosec // as above
	)
	for _, part := range []string{"", "tmp", "new", "cur"} {
		path := filepath.Join(home, "Maildir", part)
		err = errors.Join(err, os.Mkdir(path, 0o700), os.Chown(path, guestUID, guestUID))
	}
	if err != nil {
		return nil, err
	}
	g.cmd = exec.CommandContext(ctx, "/usr/sbin/sshd", "-D", "-f", filepath.Join(dir, "conf")) //nolint:gosec // of this package
	g.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	return g, listening(ctx, g.addr)
}

func (g *guest) stop() {
	_ = g.cmd.Process.Kill() // it may have ended
	_ = g.cmd.Wait()         // as above
}

func (g *guest) args() []string { return []string{"-guest", g.addr, "-key", g.keyFile} }

// keyPair writes a private key, and returns its public half.
func keyPair(path string) (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	return string(ssh.MarshalAuthorizedKey(key)), os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// arrivals reports when files are linked into the inbox, until stop.
func (g *guest) arrivals() (seen <-chan time.Time, stop func(), err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, g.inbox, unix.IN_CREATE); err != nil {
		_ = unix.Close(fd) // there is nothing in it
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	times := make(chan time.Time, 1000)
	go func() {
		defer close(times)
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			const head = unix.SizeofInotifyEvent
			for at := 0; at < n; at += head + int(buf[at+12]) { // inotify(7): the name's length is below 256
				times <- time.Now()
			}
		}
	}()
	return times, func() { _ = f.Close() }, nil
}

// intoGuest is the time from the 250 of a message until it is in the guest's Maildir.
func intoGuest(ctx context.Context, b *bench) error {
	g, err := b.startGuest(ctx)
	if err != nil {
		return err
	}
	defer g.stop()
	l, err := b.prepare(ctx, g.hostKey, "vm0")
	if err != nil {
		return err
	}
	if err := l.start(ctx, g.args()...); err != nil {
		return err
	}
	defer l.stop()
	seen, stop, err := g.arrivals()
	if err != nil {
		return err
	}
	defer stop()
	if _, err := b.delays(ctx, l, seen, 1); err != nil { // it connects
		return err
	}
	took, err := b.delays(ctx, l, seen, b.copies)
	if err != nil {
		return err
	}
	line("250 → file in the guest's Maildir", percentiles(took), "p99 < 100 ms")
	return nil
}

// backlog is how fast mail that waits gets into a guest.
func backlog(ctx context.Context, b *bench) error {
	g, err := b.startGuest(ctx)
	if err != nil {
		return err
	}
	defer g.stop()
	l, err := b.prepare(ctx, g.hostKey, "vm0")
	if err != nil {
		return err
	}
	if err := l.fill(b.backlog, true, "vm0"); err != nil {
		return err
	}
	seen, stop, err := g.arrivals()
	if err != nil {
		return err
	}
	defer stop()
	if err := l.start(ctx, g.args()...); err != nil {
		return err
	}
	defer l.stop()
	var first, last time.Time
	for n := range b.backlog {
		select {
		case last = <-seen:
		case <-time.After(time.Minute):
			return fmt.Errorf("%d of %d messages came", n, b.backlog)
		}
		if n == 0 {
			first = last
		}
	}
	line("backlog into the guest", fmt.Sprintf("%.0f /s", float64(b.backlog-1)/last.Sub(first).Seconds()), "≥ 500 /s")
	return nil
}
