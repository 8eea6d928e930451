package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"lodge/https/trust"
)

type trustCmd struct {
	Remove bool `help:"Remove the certificate."`
}

// Run adds the daemon's root certificate to the system's store and to the browsers' stores in every
// home directory.
func (c *trustCmd) Run(ctx context.Context, a *app) error {
	root, err := a.client.RootPEM(ctx)
	if err != nil {
		return err
	}
	passwd, err := os.Open("/etc/passwd")
	if err != nil {
		return fmt.Errorf("list home directories: %w", err)
	}
	defer passwd.Close() //nolint:errcheck // it was only read
	stores := trust.Stores{Homes: homes(passwd)}
	change := stores.Install
	if c.Remove {
		change = stores.Uninstall
	}
	results, err := change(ctx, root)
	if results == nil {
		results = []trust.Result{} // an empty list is [] in JSON
	}
	return errors.Join(err, a.print(results, func(w io.Writer) {
		for _, r := range results {
			row(w, r.Store, outcome(r, c.Remove))
		}
	}))
}

func outcome(r trust.Result, removed bool) string {
	switch {
	case r.Hint != "":
		return r.Hint
	case removed:
		return "certificate removed"
	case r.Changed:
		return "certificate added"
	default:
		return "certificate was present"
	}
}

// homes returns the home directories of root and of people in passwd(5).
func homes(passwd io.Reader) []string {
	const firstPerson, nobody = 1000, 65534
	var dirs []string
	lines := bufio.NewScanner(passwd)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 7 {
			continue
		}
		uid, err := strconv.Atoi(fields[2])
		if err != nil || uid == nobody || (uid != 0 && uid < firstPerson) {
			continue
		}
		if info, err := os.Stat(fields[5]); err == nil && info.IsDir() && !slices.Contains(dirs, fields[5]) && fields[5] != "/" {
			dirs = append(dirs, fields[5])
		}
	}
	return dirs
}
