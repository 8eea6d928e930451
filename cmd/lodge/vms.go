package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"lodge/gateway"
	"lodge/gateway/control"
)

type newCmd struct {
	Name       string `arg:"" help:"The VM's name: lower-case letters, digits and dashes, starting with a letter."`
	Image      string `help:"Base image; lodge image ls shows them." placeholder:"NAME"`
	CPUs       uint16 `help:"Virtual processors." name:"cpus" placeholder:"N"`
	Memory     uint32 `help:"Memory in MiB." placeholder:"MIB"`
	Disk       uint32 `help:"Size of the disk in GiB." placeholder:"GIB"`
	UserData   string `help:"cloud-init user data; - reads stdin." placeholder:"FILE"`
	Wait       bool   `help:"Wait until one can log in."`
	DirectBoot bool   `help:"Start the image's kernel without its boot loader." hidden:""`
}

// Run makes a VM.
func (c *newCmd) Run(ctx context.Context, a *app) error {
	if err := gateway.CheckName(c.Name); err != nil {
		return err
	}
	userData, err := a.readUserData(c.UserData)
	if err != nil {
		return err
	}
	spec := gateway.Spec{
		Name: c.Name, Image: c.Image, CPUs: int(c.CPUs), MemoryMiB: int(c.Memory), DiskGiB: int(c.Disk),
		UserData: userData, DirectBoot: c.DirectBoot,
	}
	p := a.progress()
	defer p.end()
	info, err := a.client.New(ctx, spec, p.show)
	if err != nil {
		return err
	}
	if c.Wait {
		if info, err = a.client.Wait(ctx, c.Name, control.Userspace, p.show); err != nil {
			return err
		}
	}
	p.end()
	return a.print(info, func(w io.Writer) { describe(w, info) })
}

// readUserData reads the file, or nothing when there is none.
func (a *app) readUserData(path string) (string, error) {
	in := a.in
	switch path {
	case "":
		return "", nil
	case "-":
	default:
		f, err := os.Open(path)
		if err != nil {
			return "", gateway.Invalid("cannot read the user data: %v", err).Because(err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, gateway.MaxUserDataBytes+1))
	if err != nil {
		return "", gateway.Invalid("cannot read the user data: %v", err).Because(err)
	}
	if len(text) > gateway.MaxUserDataBytes {
		return "", gateway.Invalid("the user data is larger than %s", size(gateway.MaxUserDataBytes)).
			WithHint("Let it fetch what is large; in a VM, s3://… needs no key.")
	}
	return string(text), nil
}

// describe writes what a person wants to know of a VM. Errors of w come up when it is flushed.
func describe(w io.Writer, v control.Info) {
	state := v.State
	if v.Reason != "" {
		state += " (" + v.Reason + ")"
	}
	rows := [][2]string{
		{"name", v.Name},
		{"state", state},
		{"url", v.URL},
		{"mail", "anything@" + v.MailDomain},
		{"ssh", "lodge ssh " + v.Name},
		{"address", v.Addr.String()},
		{"image", v.Image},
		{"size", fmt.Sprintf("%d CPUs, %d MiB memory, %d GiB disk", v.CPUs, v.MemoryMiB, v.DiskGiB)},
		{"shared", shares(v.Shares)},
		{"created", v.Created.Local().Format("2006-01-02 15:04:05")},
	}
	for _, row := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
}

func shares(all []gateway.Share) string {
	var public []string
	for _, s := range all {
		switch {
		case s.Visibility != gateway.Public:
		case s.Port == gateway.DefaultPort:
			public = append(public, "the page")
		default:
			public = append(public, fmt.Sprintf("port %d", s.Port))
		}
	}
	if len(public) == 0 {
		return "private"
	}
	return strings.Join(public, ", ") + " with everyone"
}

type lsCmd struct{}

// Run lists the VMs.
func (*lsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.List(ctx)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			_, _ = fmt.Fprintln(w, "No VMs yet. Make one: lodge new hello") // flushed, and checked, by print
			return
		}
		_, _ = fmt.Fprintln(w, "NAME\tSTATE\tIMAGE\tCPUS\tMEMORY\tDISK\tURL")
		for _, v := range all {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d MiB\t%d GiB\t%s\n",
				v.Name, v.State, v.Image, v.CPUs, v.MemoryMiB, v.DiskGiB, v.URL)
		}
	})
}

// named is a verb's VM.
type named struct {
	Name string `arg:"" help:"The VM's name."`
}

// say answers with the VM after a verb, and one line of text.
func (a *app) say(v control.Info, err error) error {
	if err != nil {
		return err
	}
	return a.print(v, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%s is %s.\n", v.Name, v.State) })
}

type showCmd struct{ named }

// Run shows one VM.
func (c *showCmd) Run(ctx context.Context, a *app) error {
	info, err := a.client.Show(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(info, func(w io.Writer) { describe(w, info) })
}

type startCmd struct{ named }

// Run starts a VM.
func (c *startCmd) Run(ctx context.Context, a *app) error { return a.say(a.client.Start(ctx, c.Name)) }

type stopCmd struct {
	named

	Force bool `help:"Pull the plug instead of asking the guest."`
}

// Run stops a VM.
func (c *stopCmd) Run(ctx context.Context, a *app) error {
	return a.say(a.client.Stop(ctx, c.Name, c.Force))
}

type restartCmd struct{ named }

// Run restarts a VM.
func (c *restartCmd) Run(ctx context.Context, a *app) error {
	return a.say(a.client.Restart(ctx, c.Name))
}

type waitCmd struct {
	named

	For control.Milestone `default:"userspace" enum:"userspace,service" help:"userspace: one can log in; service: something answers at its URL."`
}

// Run waits for a VM.
func (c *waitCmd) Run(ctx context.Context, a *app) error {
	p := a.progress()
	defer p.end()
	info, err := a.client.Wait(ctx, c.Name, c.For, p.show)
	p.end()
	return a.say(info, err)
}

type rmCmd struct {
	named

	Yes bool `help:"Do not ask." short:"y"`
}

// Run deletes a VM.
func (c *rmCmd) Run(ctx context.Context, a *app) error {
	if _, err := a.client.Show(ctx, c.Name); err != nil {
		return err // before asking
	}
	if !c.Yes {
		if err := a.confirm("Delete " + c.Name + " with its disk, its mail and its objects?"); err != nil {
			return err
		}
	}
	if err := a.client.Remove(ctx, c.Name); err != nil {
		return err
	}
	return a.print(map[string]string{"removed": c.Name}, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s is gone.\n", c.Name)
	})
}

// confirm asks a person. Without one at a terminal the answer is no.
func (a *app) confirm(question string) error {
	if _, ok := terminal(a.in); !ok {
		return gateway.Invalid("this needs a yes, and there is no terminal to ask at").WithHint("Add --yes if you are sure.")
	}
	if _, err := fmt.Fprintf(a.err, "%s [y/N] ", question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	reply, err := bufio.NewReader(a.in).ReadString('\n')
	reply = strings.ToLower(strings.TrimSpace(reply))
	if err != nil || (reply != "y" && reply != "yes") {
		return gateway.Errorf(gateway.KindConflict, "nothing was done")
	}
	return nil
}
