// Package cli is the command line of Lodge as a library: a verb per file, each a struct whose fields kong fills and whose Run
// does the work. It asks lodged for everything but images, which it builds itself.
//
// Run shows errors, and ExitCode is the one table from them to exit codes: 0 done; 1 failed; 2 the command, or a value in it,
// is wrong, and the same again will fail again; 3 lodged is not running; 130 interrupted. lodge ssh exits as the remote command
// did (255: no connection).
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"lodge/gateway"
	"lodge/gateway/control"
	"lodge/vmhost/image"
)

// verbs is the command line: one field per verb.
type verbs struct {
	Socket string `default:"${socket}" help:"lodged's socket." placeholder:"PATH"`
	JSON   bool   `help:"Answer in JSON on stdout, and with errors in JSON on stderr." name:"json"`

	New     newCmd     `cmd:"" help:"Make a VM and start it."`
	Ls      lsCmd      `cmd:"" help:"List the VMs."`
	Show    showCmd    `cmd:"" help:"Show one VM."`
	Start   startCmd   `cmd:"" help:"Start VMs."`
	Stop    stopCmd    `cmd:"" help:"Stop VMs."`
	Restart restartCmd `cmd:"" help:"Stop VMs and start them again."`
	Rm      rmCmd      `cmd:"" help:"Remove VMs with their disks, mail and objects."`
	Wait    waitCmd    `cmd:"" help:"Wait until a VM is up."`
	SSH     sshCmd     `cmd:"" help:"Log in to a VM, or run a command in it." name:"ssh"`
	Console consoleCmd `cmd:"" help:"Use a VM's serial console; Ctrl-] leaves it."`
	Logs    logsCmd    `cmd:"" help:"Show what a VM's console has said."`
	Share   shareCmd   `cmd:"" help:"Say who may open a VM's page, or one port of it."`
	Open    openCmd    `cmd:"" help:"Print a one-time link that opens a VM's pages."`
	Mail    mailCmd    `cmd:"" help:"List a VM's mail, or show one message."`
	S3      s3Cmd      `cmd:"" help:"List and copy a VM's objects." name:"s3"`
	Trust   trustCmd   `cmd:"" help:"Make this machine's browsers and tools trust Lodge's certificates."`
	Image   imageCmd   `cmd:"" help:"Build and list base images."`
	Version versionCmd `cmd:"" help:"Show the versions of lodge and lodged."`
}

// app is what a verb works with.
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

// Run does what args say with client; nil is a client of the socket that args name. An error has been shown on Err when it
// returns.
func Run(ctx context.Context, client *control.Client, args []string, stdio Stdio) error {
	a := &app{client: client, in: stdio.In, out: stdio.Out, err: stdio.Err}
	err := a.do(ctx, args)
	if ctx.Err() != nil && err != nil {
		err = errors.Join(ctx.Err(), err) // whatever broke off, it did because of the signal
	}
	report(a.err, err, a.JSON)
	return err
}

func (a *app) do(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	var helped bool
	parser, err := kong.New(&a.verbs,
		kong.Name("lodge"),
		kong.Description("VMs that have HTTPS, mail and S3 from birth.\n\nExit codes: 0 done, 1 failed, 2 the command or a value in it is wrong, 3 lodged is not running."),
		kong.Vars{
			"socket": control.DefaultSocket, "state": "/var/lib/lodge",
			"image": image.Default, "images": "One of " + strings.Join(image.Names(), ", ") + ".",
		},
		kong.Writers(a.out, a.err),
		kong.Exit(func(int) { helped = true }), // kong calls it after help, and then goes on parsing
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a),
	)
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	switch {
	case helped:
		return nil
	case err != nil:
		a.JSON = a.JSON || slices.Contains(args, "--json") // parsing may not have come that far
		return gateway.Invalid("%v", err).WithHint("See: lodge %s", helpFor(err))
	}
	if a.client == nil {
		a.client = control.NewClient(a.Socket)
	}
	return parsed.Run()
}

// helpFor is the arguments that show the help which a wrong command line wants.
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

// terminal says whether f is one, and its file descriptor.
func terminal(f any) (fd int, ok bool) {
	file, ok := f.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd()) //nolint:gosec // file descriptors are small
	return fd, term.IsTerminal(fd)
}
