// Package cli is the command line of Lodge as a library: a verb per file, each a struct whose
// fields kong fills and whose Run does the work. It asks lodged for everything.
//
// Run shows errors. ExitCode maps them to exit codes: 0 success; 1 failure; 2 wrong command or
// value, so that a repetition fails again; 3 lodged is not running; 130 interrupted. lodge ssh
// exits with the status of the remote command (255: no connection).
//
// The verbs act for the user who runs the process: new --user-data and s3 cp open this machine's
// files, ssh runs a program and trust changes certificate stores. Run never checks who calls it; a
// program that passes the commands of others on must refuse those verbs first.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"lodge/gateway"
	"lodge/gateway/control"
)

// verbs is the command line: one field per verb.
type verbs struct {
	Socket string           `default:"${socket}" help:"The socket of lodged." placeholder:"PATH"`
	JSON   bool             `help:"Print answers and errors as JSON." name:"json"`
	Ver    kong.VersionFlag `help:"Print the version of lodge." name:"version"`

	New         newCmd         `cmd:"" group:"vms"    help:"Create a VM and start it."`
	Ls          lsCmd          `cmd:"" group:"vms"    help:"List the VMs."`
	Show        showCmd        `cmd:"" group:"vms"    help:"Show one VM."`
	Start       startCmd       `cmd:"" group:"vms"    help:"Start VMs."`
	Stop        stopCmd        `cmd:"" group:"vms"    help:"Stop VMs."`
	Restart     restartCmd     `cmd:"" group:"vms"    help:"Stop VMs and start them again."`
	Set         setCmd         `cmd:"" group:"vms"    help:"Change settings of VMs."`
	Rm          rmCmd          `cmd:"" group:"vms"    help:"Remove VMs with their disks, mail and objects."`
	Checkpoint  checkpointCmd  `cmd:"" group:"vms" help:"Record the state of a VM, now or by a schedule; remove such a checkpoint."`
	Checkpoints checkpointsCmd `cmd:"" group:"vms" help:"List the checkpoints of a VM."`
	Rollback    rollbackCmd    `cmd:"" group:"vms" help:"Give a VM the state of a checkpoint."`
	Fork        forkCmd        `cmd:"" group:"vms" help:"Make a VM with the state of another."`
	Diff        diffCmd        `cmd:"" group:"vms"    help:"Show what was changed in a VM since its image."`
	History     historyCmd     `cmd:"" group:"vms"    help:"List what was changed in a VM from checkpoint to checkpoint."`
	Recipe      recipeCmd      `cmd:"" group:"vms"    help:"Print user data that makes the changes of a VM to a new one."`
	Wait        waitCmd        `cmd:"" group:"vms"    help:"Wait until a VM is up."`
	SSH         sshCmd         `cmd:"" group:"access" help:"Log in to a VM, or run a command in it." name:"ssh" passthrough:""`
	SSHConfig   sshConfigCmd   `cmd:"" group:"access" help:"Print ssh_config(5) blocks for ssh, scp and editors." name:"ssh-config"`
	Console     consoleCmd     `cmd:"" group:"access" help:"Use a VM's serial console; Ctrl-] leaves it."`
	Logs        logsCmd        `cmd:"" group:"access" help:"Show the log of a VM's console."`
	Open        openCmd        `cmd:"" group:"access" help:"Print a one-time link that opens a VM's pages, or those of all VMs."`
	Share       shareCmd       `cmd:"" group:"access" help:"Set who can open a VM's page, or one port of it; show all that opens a VM."`
	Grant       grantCmd       `cmd:"" group:"access" help:"Set what somebody, or a team, may do with a VM."`
	Request     requestCmd     `cmd:"" group:"access" help:"List, approve and deny people's requests to open a port."`
	Person      personCmd      `cmd:"" group:"access" help:"Add, remove and list people, and log them in."`
	Team        teamCmd        `cmd:"" group:"access" help:"Add, remove and list teams."`
	Link        linkCmd        `cmd:"" group:"access" help:"List and remove the links to ports that lodge share made."`
	Token       tokenCmd       `cmd:"" group:"access" help:"Make, list and remove tokens, by which scripts open pages."`
	Forward     forwardCmd     `cmd:"" group:"access" help:"Lead ports of the host to VMs, for what is not HTTP."`
	Domain      domainCmd      `cmd:"" group:"access" help:"Add, remove and list the custom domains of VMs."`
	Mail        mailCmd        `cmd:"" group:"data"   help:"Read and remove the mail of a VM, or of postmaster, and set who may write to a VM."`
	S3          s3Cmd          `cmd:"" group:"data"   help:"List and copy a VM's objects." name:"s3"`
	Trust       trustCmd       `cmd:"" group:"host"   help:"Add Lodge's root certificate to this machine's browsers and tools."`
	Image       imageCmd       `cmd:"" group:"host"   help:"Build and list base images; list and remove templates."`
	Doctor      doctorCmd      `cmd:"" group:"host"   help:"Check DNS records, ports and the certificate."`
	Version     versionCmd     `cmd:"" group:"host"   help:"Show the versions of lodge and lodged."`

	Help       helpCmd       `cmd:"" group:"host" help:"Show the help of a verb."`
	Completion completionCmd `cmd:"" group:"host" help:"Print the code that makes a shell complete verbs and VM names."`
}

// groups are the headings of the help.
func groups() []kong.Group {
	return []kong.Group{
		{Key: "vms", Title: "VMs:"},
		{Key: "access", Title: "Access:"},
		{Key: "data", Title: "Mail and objects:"},
		{Key: "host", Title: "This machine:"},
	}
}

// app is the environment of a verb.
type app struct {
	verbs
	client *control.Client
	in     io.Reader
	out    io.Writer
	err    io.Writer
}

// Stdio is where a command reads and writes.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run runs the command args with client; if it is nil, with a client of the socket that args name.
// It shows an error on Err before it returns it.
func Run(ctx context.Context, client *control.Client, args []string, stdio Stdio) error {
	a := &app{client: client, in: stdio.In, out: stdio.Out, err: stdio.Err}
	err := a.do(ctx, args)
	if ctx.Err() != nil && err != nil {
		err = errors.Join(ctx.Err(), err) // the signal is the cause of any error now
	}
	report(a.err, err, a.JSON)
	return err
}

func (a *app) do(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	var helped bool
	parser, err := a.parser(ctx, func(int) { helped = true }) // kong calls it after help, and then continues to parse
	if err != nil {
		return err
	}
	if done, err := a.complete(ctx, parser); done || err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	switch {
	case helped:
		return nil
	case err != nil:
		a.JSON = a.JSON || slices.Contains(args, "--json") // parsing may have ended before it
		return wrongUsage(err)
	}
	if a.client == nil {
		a.client = control.NewClient(a.Socket)
	}
	return parsed.Run()
}

func (a *app) parser(ctx context.Context, exit func(int)) (*kong.Kong, error) {
	return kong.New(&a.verbs,
		kong.Name("lodge"),
		kong.Description("VMs with HTTPS, mail and S3.\n\n"+
			"Exit codes: 0 success, 1 failure, 2 wrong command or value, 3 lodged is not running, 130 interrupted."),
		kong.Vars{"socket": control.DefaultSocket, "version": "lodge " + ownVersion()},
		kong.Writers(a.out, a.err),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ExplicitGroups(groups()),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a),
	)
}

// wrongUsage is the error of a wrong command line.
func wrongUsage(err error) error {
	return gateway.Invalid("%v", err).WithHint("See: lodge %s", helpFor(err))
}

// helpFor returns the arguments that show the help of the verb that was used wrongly.
func helpFor(err error) string {
	if parse, ok := errors.AsType[*kong.ParseError](err); ok {
		for _, step := range parse.Context.Path {
			if step.Command != nil {
				return step.Command.Name + " --help"
			}
		}
	}
	return "--help"
}

// terminal returns the file descriptor of f if f is a terminal.
func terminal(f any) (fd int, ok bool) {
	file, ok := f.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd()) //nolint:gosec // file descriptors are small
	return fd, term.IsTerminal(fd)
}
