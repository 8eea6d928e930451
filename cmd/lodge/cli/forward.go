package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"lodge/gateway"
	"lodge/gateway/api"
)

type forwardCmd struct {
	Add forwardAddCmd `cmd:"" default:"withargs" help:"Lead a port of the host to a port of a VM."`
	Ls  forwardLsCmd  `cmd:"" help:"List the forwarded ports."`
	Rm  forwardRmCmd  `cmd:"" help:"Close forwarded ports."`
}

type forwardAddCmd struct {
	named

	What string `arg:"" help:"[ADDRESS:]HOSTPORT:VMPORT/tcp or /udp; without an address, each one that lodged listens on." name:"ports"`
}

// Help is the text below the usage.
func (*forwardAddCmd) Help() string {
	return "\"add\" may be left out: lodge forward blog 2222:22/tcp. A port of the host leads to one VM. It is kept over restarts, and removed with the VM. " +
		"Whoever reaches the port reaches the VM: Lodge asks nobody for a login there. In the VM, connections come from 169.254.169.254."
}

// Run forwards a port.
func (c *forwardAddCmd) Run(ctx context.Context, a *app) error {
	f, err := gateway.ParseForward(c.What)
	if err != nil {
		return err
	}
	made, err := a.client.Forward(ctx, c.Name, f)
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) {
		row(w, fmt.Sprintf("%s (%s) leads to port %d of %s.", at(made), made.Protocol, made.VMPort, made.VM))
	})
}

// at lists where a forward listens.
func at(f api.Forward) string {
	var all []string
	for _, addr := range f.Addrs {
		all = append(all, net.JoinHostPort(addr.String(), strconv.Itoa(int(f.Port))))
	}
	return strings.Join(all, ", ")
}

type forwardLsCmd struct{}

// Run lists the forwarded ports.
func (*forwardLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.Forwards(ctx)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No forwarded ports. Forward one: lodge forward blog 2222:22/tcp")
			return
		}
		row(w, "PORT", "VM", "VM PORT", "ADDRESSES", "STATE")
		for _, f := range all {
			state := f.State
			if f.Reason != "" {
				state += " (" + f.Reason + ")"
			}
			row(w, f.HostPort, f.VM, f.VMPort, at(f), state)
		}
	})
}

type forwardRmCmd struct {
	Ports []string `arg:"" help:"HOSTPORT/tcp or /udp, as lodge forward ls has it." name:"port" predictor:"forward"`
}

// Help is the text below the usage.
func (*forwardRmCmd) Help() string { return "Connections that are open through the port are cut off." }

// Run removes forwards.
func (c *forwardRmCmd) Run(ctx context.Context, a *app) error {
	return each(c.Ports, func(text string) (string, error) {
		port, err := gateway.ParseHostPort(text)
		if err != nil {
			return "", err
		}
		return port.String(), a.client.RemoveForward(ctx, port)
	}, func(port string) error {
		return a.print(map[string]string{"removed": port}, func(w io.Writer) { row(w, port+" is removed.") })
	})
}
