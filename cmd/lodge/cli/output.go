package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"text/tabwriter"

	"lodge/gateway"
)

// print answers with v: as JSON, or as text writes it.
func (a *app) print(v any, text func(w io.Writer)) error {
	if a.JSON {
		return a.printJSON(v)
	}
	table := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	text(table)
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// report shows err on stderr: two lines, or one JSON object {"kind","error","hint","exit"}. A remote command has spoken for itself.
func report(stderr io.Writer, err error, asJSON bool) {
	if err == nil || errors.As(err, new(remoteExit)) {
		return
	}
	shown := &gateway.Error{Kind: gateway.KindOf(err), Msg: err.Error()}
	if e, ok := errors.AsType[*gateway.Error](err); ok {
		shown = e
	}
	if errors.Is(err, context.Canceled) {
		shown = gateway.Errorf(gateway.KindUnavailable, "interrupted")
	}
	// Nothing can be said any more when stderr does not take it.
	if asJSON {
		_ = json.NewEncoder(stderr).Encode(struct {
			*gateway.Error
			Exit int `json:"exit"`
		}{shown, ExitCode(err)})
		return
	}
	_, _ = fmt.Fprintf(stderr, "lodge: %s\n", shown.Msg)
	if shown.Hint != "" {
		_, _ = fmt.Fprintf(stderr, "hint: %s\n", shown.Hint)
	}
}

// size writes a number of bytes for a person.
func size(bytes int64) string {
	const step = 1024
	if bytes < step {
		return fmt.Sprintf("%d B", bytes)
	}
	value, units := float64(bytes)/step, "KMGTPE"
	for value >= step {
		value, units = value/step, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}

// diskUsage is how many bytes a file takes, which for a sparse one is less than its size.
func diskUsage(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * 512, nil // stat(2): always in units of 512
	}
	return info.Size(), nil
}
