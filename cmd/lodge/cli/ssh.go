package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"lodge/gateway"
)

type sshCmd struct {
	named

	Command []string `arg:"" help:"A command for the VM's shell; none opens a session." optional:"" passthrough:""`
}

// remoteExit is the status with which ssh ended, other than 0.
type remoteExit int

// Error implements error.
func (e remoteExit) Error() string { return fmt.Sprintf("ssh ended with status %d", int(e)) }

// Run runs the system's ssh with the host's key and the guest's pinned one; with --json it only says how one would.
func (c *sshCmd) Run(ctx context.Context, a *app) error {
	access, err := a.client.SSH(ctx, c.Name)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(access)
	}
	known, err := writeKnownHosts(access.KnownHosts)
	if err != nil {
		return err
	}
	defer os.Remove(known)                                                       //nolint:errcheck // a public key in the temporary directory
	cmd := exec.CommandContext(ctx, "ssh", sshArgs(access, known, c.Command)...) //nolint:gosec // ssh's own arguments, from lodged
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err = cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok && ended.ExitCode() >= 0 {
		return remoteExit(ended.ExitCode())
	}
	if errors.Is(err, exec.ErrNotFound) {
		return gateway.Errorf(gateway.KindUnavailable, "there is no ssh on this machine").Because(err).
			WithHint("apt-get install openssh-client")
	}
	if err != nil {
		return fmt.Errorf("run ssh: %w", err)
	}
	return nil
}

func sshArgs(access gateway.SSHAccess, known string, command []string) []string {
	args := []string{
		"-F", "none", "-i", access.KeyFile, "-l", access.User,
		"-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + known,
		"-o", "GlobalKnownHostsFile=none",
		"-o", "LogLevel=ERROR",
		access.Addr,
	}
	if len(command) > 0 {
		args = append(append(args, "--"), command...)
	}
	return args
}

// writeKnownHosts puts the pinned key where ssh reads it.
func writeKnownHosts(line string) (path string, err error) {
	f, err := os.CreateTemp("", "lodge-known-hosts-")
	if err != nil {
		return "", fmt.Errorf("write known hosts: %w", err)
	}
	_, err = fmt.Fprintln(f, line)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("write known hosts: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}
