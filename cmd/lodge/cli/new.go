package cli

import (
	"context"
	"io"
	"os"

	"lodge/gateway"
	"lodge/gateway/api"
)

type newCmd struct {
	Name       string `arg:"" help:"The VM's name: a lower-case letter, then lower-case letters, digits and dashes."`
	Image      string `help:"Base image, one of lodge image ls." placeholder:"NAME"`
	CPUs       uint16 `help:"Virtual processors." name:"cpus" placeholder:"N"`
	Memory     uint32 `help:"Memory in MiB." placeholder:"MIB"`
	Disk       uint32 `help:"Size of the disk in GiB." placeholder:"GIB"`
	UserData   string `help:"cloud-init user data; - reads stdin." placeholder:"FILE"`
	Wait       bool   `help:"Wait until ssh works."`
	Boot       bool   `help:"Boot the image, instead of resuming a guest that has booted."`
	DirectBoot bool   `help:"Start the image's kernel without its boot loader." hidden:""`
}

// Run creates a VM.
func (c *newCmd) Run(ctx context.Context, a *app) error {
	if err := gateway.CheckName(c.Name); err != nil {
		return err
	}
	userData, err := a.readUserData(c.UserData)
	if err != nil {
		return err
	}
	spec := gateway.Spec{
		Name: c.Name, UserData: userData, Boot: c.Boot, Size: gateway.Size{
			Image: c.Image, CPUs: int(c.CPUs), MemoryMiB: int(c.Memory), DiskGiB: int(c.Disk), DirectBoot: c.DirectBoot,
		},
	}
	p := a.progress()
	defer p.end()
	info, err := a.client.New(ctx, spec, p.show)
	if err != nil {
		return err
	}
	if c.Wait {
		if info, err = a.client.Wait(ctx, c.Name, api.SSH, p.show); err != nil {
			return err
		}
	}
	p.end()
	return a.print(info, func(w io.Writer) { describe(w, info) })
}

// readUserData reads a file, or stdin for -; without a path it returns nothing.
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
			WithHint("Fetch large files from within: in a VM, s3://… needs no key.")
	}
	return string(text), nil
}
