package vmhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/crypto/ssh"

	"lodge/gateway"
	"lodge/gateway/relay"
)

const sshPort = 22

// shell runs commands as root on the files of a VM, which is not trusted: what a command prints is read
// by a function with limits of its own, and all ends with a context.
type shell interface {
	runAll(commands ...command) error // one after the other
	explain(err error) error          // turns errors of runAll into those of verbs
	close()
}

// command is a line for sh. Its exit status has no meaning: read finds out whether the output is complete.
type command struct {
	line  string
	stdin []byte
	read  func(io.Reader) error
}

// guestShell is a log-in to a guest that runs.
type guestShell struct {
	vm     gateway.VM
	ctx    context.Context //nolint:containedctx // a log-in is one call of a verb
	client *ssh.Client
	stop   func() bool
}

// logIn logs in to a VM, whose host key is the one that its record has.
func (h *Host) logIn(ctx context.Context, m gateway.VM) (*guestShell, error) {
	unreachable := func(err error) error {
		return gateway.Errorf(gateway.KindUnavailable, "%s does not let the host log in", m.Name).
			WithHint("Look whether its sshd runs, and whether /etc/lodge and the user %s are as they were: lodge console %s", gateway.GuestUser, m.Name).Because(err)
	}
	config, err := relay.SSHConfig(gateway.GuestUser, h.cfg.LoginKeyFile(), m.HostKey)
	if err != nil {
		return nil, err
	}
	raw, err := relay.Dial(ctx, "tcp4", m.Tap(), netip.AddrPortFrom(m.Addr, sshPort))
	if err != nil {
		return nil, unreachable(err)
	}
	g := &guestShell{vm: m, ctx: ctx, stop: context.AfterFunc(ctx, func() { relay.Reset(raw) })}
	conn, channels, requests, err := ssh.NewClientConn(raw, m.Addr.String(), config)
	if err != nil {
		g.stop()
		relay.Reset(raw)
		return nil, unreachable(err)
	}
	g.client = ssh.NewClient(conn, channels, requests)
	return g, nil
}

// runAll implements shell.
func (g *guestShell) runAll(commands ...command) error {
	for _, c := range commands {
		if err := g.run(c); err != nil {
			return err
		}
	}
	return nil
}

// run runs one command. What it prints behind what its read wants is not waited for.
func (g *guestShell) run(c command) error {
	session, err := g.client.NewSession()
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	defer session.Close() //nolint:errcheck // the output has been read
	session.Stdin = bytes.NewReader(c.stdin)
	out, err := session.StdoutPipe()
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	if err := session.Start("sudo -n " + c.line); err != nil {
		return fmt.Errorf("start %.20s: %w", c.line, err)
	}
	return c.read(out)
}

// explain turns the end of the context into its error, and errors of reading into one about the guest.
func (g *guestShell) explain(err error) error {
	if err == nil {
		return nil
	}
	if g.ctx.Err() != nil {
		return fmt.Errorf("examine %s: %w", g.vm.Name, errors.Join(g.ctx.Err(), err))
	}
	if known, ok := errors.AsType[*gateway.Error](err); ok {
		return known
	}
	return gateway.Errorf(gateway.KindUnavailable, "%s does not list its files", g.vm.Name).
		WithHint("sudo without a password, dpkg, find and tar are needed in it: lodge ssh %s", g.vm.Name).Because(err)
}

func (g *guestShell) close() {
	g.stop()
	_ = g.client.Close() // everything was read
}
