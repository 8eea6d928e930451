package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"lodge/gateway"
)

type logsCmd struct {
	named

	Follow bool `help:"Follow the log." short:"f"`
	Raw    bool `help:"Write control characters to the terminal unchanged."`
}

// Run shows a VM's console log; with --json as one {"text"} object per line.
func (c *logsCmd) Run(ctx context.Context, a *app) error {
	text, err := a.client.Log(ctx, c.Name, c.Follow)
	if err != nil {
		return err
	}
	defer text.Close() //nolint:errcheck // it was only read
	if !a.JSON {
		return brokenOff(ctx, a.passed(text, c.Raw))
	}
	lines := bufio.NewReader(text)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if err := a.printJSON(map[string]string{"text": strings.TrimRight(line, "\r\n")}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return brokenOff(ctx, err)
		}
	}
}

// brokenOff returns the error of a copy. An end by a signal is no error.
func brokenOff(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return gateway.Errorf(gateway.KindUnavailable, "the answer was cut off: %v", err).Because(err)
}
