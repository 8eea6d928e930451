package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"golang.org/x/term"

	"lodge/gateway"
)

// leaveKey ends a console session: Ctrl-], as in telnet and virsh.
const leaveKey = 0x1d

type consoleCmd struct{ named }

// Run connects the terminal to a VM's serial console.
func (c *consoleCmd) Run(ctx context.Context, a *app) error {
	if a.JSON {
		return gateway.Invalid("a console has no JSON form").WithHint("lodge logs %s --json", c.Name)
	}
	stream, err := a.client.Console(ctx, c.Name)
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // nothing was buffered that could be lost
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	context.AfterFunc(ctx, func() { _ = stream.Close() }) // ends the copy below
	restore, err := a.raw("Connected to " + c.Name + ". Press Ctrl-] to leave, Enter for a prompt.\r\n")
	if err != nil {
		return err
	}
	defer restore()
	// A read from a terminal cannot be interrupted: this goroutine ends with the process.
	go func() {
		if left := typeInto(stream, a.in); left {
			leave()
		}
	}()
	_, err = io.Copy(a.out, stream)
	return brokenOff(ctx, err)
}

// raw sets a terminal to raw mode, so that every key reaches the guest. restore resets it.
func (a *app) raw(greeting string) (restore func(), err error) {
	fd, ok := terminal(a.in)
	if !ok {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("set up terminal: %w", err)
	}
	_, _ = io.WriteString(a.err, greeting) // only a greeting
	return func() {
		_ = term.Restore(fd, before)       // no other state is known
		_, _ = io.WriteString(a.err, "\n") // as above
	}, nil
}

// typeInto copies keys until r ends or until leaveKey; left reports the latter.
func typeInto(w io.Writer, r io.Reader) (left bool) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		typed, _, left := bytes.Cut(buf[:n], []byte{leaveKey})
		if _, werr := w.Write(typed); werr != nil || err != nil || left {
			return left
		}
	}
}
