package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/alecthomas/kong"

	"lodge/gateway"
)

// sshCmd takes its whole command line as ssh(1) does, so kong parses none of it.
type sshCmd struct {
	Args []string `arg:"" help:"[OPTION]... VM [COMMAND]; without a command, a session." name:"arg" optional:"" predictor:"vm"`
}

// Help is the text below the usage.
func (*sshCmd) Help() string {
	return "Options of ssh(1) may stand before or after the VM: lodge ssh -L 8080:localhost:80 -N blog.\n\n" +
		"-A forwards your own agent, never the one that has the key of the host. --json prints how to connect. Flags of lodge other than --json and --help stand before ssh."
}

// remoteExit is the status with which ssh ended, other than 0.
type remoteExit int

// Error implements error.
func (e remoteExit) Error() string { return fmt.Sprintf("ssh ended with status %d", int(e)) }

// Run runs the system's ssh with the host's key and the guest's pinned one.
func (c *sshCmd) Run(ctx context.Context, a *app, parsed *kong.Context) error {
	line, err := parseSSH(c.Args)
	if err != nil {
		return err
	}
	if line.help {
		return parsed.PrintUsage(false)
	}
	a.JSON = a.JSON || line.json
	access, err := a.client.SSH(ctx, line.vm)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(access)
	}
	cmd := exec.CommandContext(ctx, "ssh", line.args(access)...) //nolint:gosec // ssh's own arguments, of this user and from lodged
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

// sshLine is the command line of ssh(1), and two flags of lodge's.
type sshLine struct {
	options    []string
	vm         string
	command    []string
	json, help bool
}

// sshValueOptions are the options of ssh(1) that take a value (OpenSSH 10).
const sshValueOptions = "BbcDEeFIiJLlmOoPpQRSWw"

// parseSSH reads args as ssh does: options stand before and after the host, and the command begins
// at the next word.
func parseSSH(args []string) (line sshLine, err error) {
	usage := func(text string, what ...any) (sshLine, error) {
		return sshLine{}, gateway.Invalid(text, what...).WithHint("See: lodge ssh --help")
	}
	for len(args) > 0 && line.command == nil {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--json":
			line.json = true
		case word == "--help", word == "-h":
			line.help = true
		case strings.HasPrefix(word, "--") && word != "--":
			return usage("unknown flag %s", word)
		case strings.HasPrefix(word, "-") && word != "-" && word != "--":
			line.options = append(line.options, word)
			if i := strings.IndexAny(word, sshValueOptions); i < 0 || i < len(word)-1 {
				continue // no value, or one within the word
			}
			if len(args) == 0 {
				return usage("ssh's option %s needs a value", word)
			}
			line.options, args = append(line.options, args[0]), args[1:]
		case line.vm == "" && word != "--":
			line.vm = word
		case word != "--":
			line.command = append([]string{word}, args...)
		case line.vm != "":
			line.command = args
			return line, nil
		}
	}
	if line.vm == "" && !line.help {
		return usage("expected a VM")
	}
	return line, nil
}

// args are ssh's arguments. ssh uses the first value of an option: those that check the host's key
// precede the user's options, and the defaults follow them. With -A, ssh forwards the agent that a
// second ForwardAgent names: the user's own.
func (l sshLine) args(access gateway.SSHAccess) []string {
	args := []string{"-F", "none"}
	for _, option := range sshOptions(access) {
		args = append(args, "-o", option[0]+"="+option[1])
	}
	if own := os.Getenv("SSH_AUTH_SOCK"); own != "" {
		args = append(args, "-o", `ForwardAgent="`+own+`"`)
	}
	args = append(args, l.options...)
	args = append(args, "-o", "User="+access.User, "-o", "LogLevel=ERROR", access.Addr)
	if len(l.command) > 0 {
		args = append(append(args, "--"), l.command...)
	}
	return args
}

// sshOptions are the options of ssh_config(5) that prove the guest's identity to ssh and the host's
// to the guest. The agent has the private key, and a guest that had the agent could log in to
// others. The guest's key comes from a command, so that no file has to stay.
func sshOptions(access gateway.SSHAccess) [][2]string {
	return [][2]string{
		{"IdentityFile", access.PublicKeyFile},
		{"IdentityAgent", access.AgentSocket},
		{"IdentitiesOnly", "yes"},
		{"ForwardAgent", "no"},
		{"StrictHostKeyChecking", "yes"},
		{"UserKnownHostsFile", os.DevNull},
		{"GlobalKnownHostsFile", os.DevNull},
		{"KnownHostsCommand", "/bin/echo " + access.KnownHosts},
	}
}
