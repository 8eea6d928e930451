package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lodge/cmd/lodged/memory"
	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/store"
	"lodge/mail"
	"lodge/mail/verdict"
)

const domain = "bench.localhost"

// idOf is the UUID of the VM with a name.
func idOf(name string) gateway.ID {
	sum := sha256.Sum256([]byte(name))
	return gateway.ID(sum[:len(gateway.ID{})])
}

// vms are names of VMs: vm0, vm1 and so on.
func vms(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("vm%d", i))
	}
	return all
}

// serveLodged serves the mail of the VMs in a state directory until ctx ends, each VM's IMAP too if there is
// one alone. It prints the addresses.
func serveLodged(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lodged", flag.ContinueOnError)
	dir := flags.String("dir", "", "")
	addr := flags.String("addr", "127.0.0.1", "")
	dns := flags.String("dns", "", "check senders, by this server")
	guest := flags.String("guest", "", "the address of the guest's sshd")
	key := flags.String("key", "", "the file of the host's private key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	db, err := openStore(ctx, *dir)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // its directory is removed
	known, err := gateway.OpenDirectory(ctx, db)
	if err != nil {
		return err
	}
	go memory.Keep(ctx)
	config := mail.Config{
		Dir: filepath.Join(*dir, "mail"), Domain: domain, Directory: known, SSHKeyFile: *key,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Dial: func(ctx context.Context, _ gateway.VM, _ uint16) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", *guest)
		},
	}
	if *dns != "" {
		config.Verdicts = verdict.New(verdict.NewResolver("", *dns))
	}
	server, err := mail.New(config)
	if err != nil {
		return err
	}
	return serve(ctx, server, *addr, known.All()[0].Identity)
}

func openStore(ctx context.Context, dir string) (*store.Store, error) {
	return store.Open(ctx, filepath.Join(dir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
}

func serve(ctx context.Context, server *mail.Server, addr string, first gateway.Identity) error {
	smtp, err := new(net.ListenConfig).Listen(ctx, "tcp", addr+":0")
	if err != nil {
		return err
	}
	imap, err := new(net.ListenConfig).Listen(ctx, "tcp", addr+":0")
	if err != nil {
		return err
	}
	fmt.Println(smtp.Addr(), imap.Addr())
	ended := make(chan error, 3)
	go func() { ended <- server.ServeSMTP(smtp) }()
	go func() { ended <- server.ServeIMAP(gatewaytest.Listener(imap, first)) }()
	go func() { ended <- server.Run(ctx) }()
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(last), <-ended, <-ended, <-ended)
}

// lodged is a running server.
type lodged struct {
	dir        string
	cmd        *exec.Cmd
	smtp, imap string
	begun      time.Time
}

// prepare makes a state directory with VMs, of which IMAP serves the first. hostKey is that of their guests;
// without one they are off.
func (b *bench) prepare(ctx context.Context, hostKey string, names ...string) (*lodged, error) {
	b.runs++
	l := &lodged{dir: filepath.Join(b.dir, fmt.Sprintf("lodged%d", b.runs))}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, err
	}
	db, err := openStore(ctx, l.dir)
	if err != nil {
		return nil, err
	}
	defer db.Close() //nolint:errcheck // each change was written
	known, err := gateway.OpenDirectory(ctx, db)
	if err != nil {
		return nil, err
	}
	desired := gateway.Stopped
	if hostKey != "" {
		desired = gateway.Running
	}
	for _, name := range names {
		vm := gateway.VM{Identity: gateway.Identity{ID: idOf(name), Name: name}, Desired: desired, Ready: true, HostKey: hostKey}
		if _, err := known.Create(ctx, vm); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// start starts the server, and waits for its addresses.
func (l *lodged) start(ctx context.Context, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(l.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()                                                                             //nolint:errcheck // the program has its own copy
	l.cmd = exec.CommandContext(ctx, self, append([]string{"lodged", "-dir", l.dir}, args...)...) //nolint:gosec // this program
	l.cmd.Stderr = log
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	l.begun = time.Now()
	if err := l.cmd.Start(); err != nil {
		return err
	}
	text, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		said, _ := os.ReadFile(log.Name()) // more about the error below
		return fmt.Errorf("lodged does not start: %w: %s", err, said)
	}
	l.smtp, l.imap, _ = strings.Cut(strings.TrimSpace(text), " ")
	return nil
}

// stop ends the server and removes its directory.
func (l *lodged) stop() {
	_ = l.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = l.cmd.Wait()                          // its status does not matter now
	_ = os.RemoveAll(l.dir)                   // else it goes with the run's
}

func (l *lodged) pid() int { return l.cmd.Process.Pid }
