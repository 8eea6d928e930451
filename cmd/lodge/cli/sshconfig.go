package cli

import (
	"context"
	"fmt"
	"strings"

	"lodge/cmd/lodge/cli/tty"
	"lodge/gateway"
	"lodge/gateway/api"
)

type sshConfigCmd struct {
	Names []string `arg:"" help:"The VMs' names; none prints all." name:"vm" optional:"" predictor:"vm"`
}

// Help is the text below the usage.
func (*sshConfigCmd) Help() string {
	return "For ssh, scp, rsync and editors: lodge ssh-config >> ~/.ssh/config, then ssh blog or scp file blog:\n\n" +
		"lodged must run, since its ssh-agent has the key of the host. The agent is never forwarded."
}

// Run prints ssh_config(5) blocks. A VM that has no block, such as a stopped one, has a comment
// where all are printed.
func (c *sshConfigCmd) Run(ctx context.Context, a *app) error {
	names, all := c.Names, len(c.Names) == 0
	if all {
		vms, err := a.client.List(ctx)
		if err != nil {
			return err
		}
		for _, v := range vms {
			names = append(names, v.Name)
		}
	}
	block := func(name string) (string, error) {
		text, err := a.sshConfig(ctx, name)
		if err != nil && all && ctx.Err() == nil {
			return "# " + tty.Line(err.Error()) + "\n", nil
		}
		return text, err
	}
	return each(names, block, func(text string) error {
		if a.JSON {
			return a.printJSON(map[string]string{"config": text})
		}
		if _, err := fmt.Fprint(a.out, text); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		return nil
	})
}

// sshConfig is the block of one VM, under its name and its host name.
func (a *app) sshConfig(ctx context.Context, name string) (string, error) {
	var v api.VM
	access, err := a.client.SSH(ctx, name)
	if err == nil {
		v, err = a.client.Show(ctx, name)
	}
	if err != nil {
		return "", err
	}
	return sshBlock(v.Name+" "+v.MailDomain, access), nil
}

func sshBlock(hosts string, access gateway.SSHAccess) string {
	var block strings.Builder
	fmt.Fprintf(&block, "Host %s\n", hosts)
	for _, option := range append([][2]string{{"HostName", access.Addr}, {"User", access.User}}, sshOptions(access)...) {
		fmt.Fprintf(&block, "    %s %s\n", option[0], option[1])
	}
	return block.String()
}
