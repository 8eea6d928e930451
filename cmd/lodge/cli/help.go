package cli

import "github.com/alecthomas/kong"

type helpCmd struct {
	Verb []string `arg:"" help:"The verb; none shows all." optional:""`
}

// Run shows what --help shows.
func (c *helpCmd) Run(parsed *kong.Context) error {
	traced, err := kong.Trace(parsed.Kong, c.Verb)
	if err != nil {
		return err
	}
	if traced.Error != nil {
		return wrongUsage(traced.Error)
	}
	return traced.PrintUsage(false)
}
